"""One-token steps over a fixed number of rotated keys: the same function as the Transformer's, without its overheads.

Keys are kept rotated, in a ring of `window` slots; key j sits in slot j mod window until key j + window replaces it. A
sink that has left the ring is kept before it, turned anew at every step so that it stays at distance `window`.

Legend: L layers, K key/value heads, G query heads per key/value head, S sinks, W window, d head width, D hidden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from ttt_kernels.attention.rotation import rotate

from ttt_memory.model.blocks import Block, DynamicWeights, precise
from ttt_memory.model.cache import LayerCache, PassCache
from ttt_memory.model.rope import RopeTables
from ttt_memory.model.transformer import Transformer, Working


class Decoder:
    """Continues a pass token by token. Holds mutable buffers of its own; writes to no state.

    Args:
        net: a network with a window.
        weights: fast weights for computing; None skips the dynamic MLPs.
        cache: what the pass has read; at least one token.
    """

    def __init__(self, net: Transformer, weights: Working | None, cache: PassCache) -> None:
        config = net.config
        assert config.window is not None
        self._net, self._window, self._sinks = net, config.window, config.sinks
        self._dtype, self._eps = net.dtype, config.norm_eps
        self._interleaved = config.block == "paper"
        self._rope: RopeTables = net.rope
        self._position = cache.length
        caches = [*cache.prefix.layers, *cache.suffix.layers]
        dynamic: list[DynamicWeights | None] = [None] * config.prefix_layers
        dynamic += [None] * config.dynamic_layers if weights is None else list(weights)
        self._layers = [_Layer(block, fast) for block, fast in zip(net.layers(), dynamic, strict=True)]
        self._final_norm = precise(net.final_norm)
        self._head = net.embedding if net.head is None else net.head
        shape = (config.layers, config.kv_heads, self._sinks + self._window, config.head_dim)
        self._k = net.embedding.new_zeros(shape)
        self._v = net.embedding.new_zeros(shape)
        self._sink_k = net.embedding.new_zeros(config.layers, config.kv_heads, self._sinks, config.head_dim)
        self._load(caches)

    @property
    def kv_length(self) -> int:
        """Keys held per layer: constant, whatever was read."""
        return self._k.shape[2]

    @torch.no_grad()
    def _load(self, caches: list[LayerCache]) -> None:
        held = caches[0].recent.k.shape[2]
        at = torch.arange(self._position - held, self._position)
        slots = self._sinks + at % self._window
        rope = self._rope(self._position + 1, self._k.device, self._dtype)
        for layer, cached in enumerate(caches):
            turned = rotate(cached.recent.k[0], rope.cos[at], rope.sin[at], interleaved=self._interleaved)
            self._k[layer, :, slots], self._v[layer, :, slots] = turned, cached.recent.v[0]
            count = cached.sinks.k.shape[2]
            # Slot S-1-s for sink s: those that have left the ring lie next to it.
            self._sink_k[layer, :, self._sinks - count :] = cached.sinks.k[0].flip(1)
            self._v[layer, :, self._sinks - count : self._sinks] = cached.sinks.v[0].flip(1)

    @torch.no_grad()
    def step(self, token: int) -> Tensor:
        """Logits [V], fp32 at least, after one more token."""
        position, window, sinks = self._position, self._window, self._sinks
        rope = self._rope(position + 1, self._k.device, self._dtype)
        cos, sin = rope.cos[position], rope.sin[position]
        out_of_ring = min(sinks, max(0, position - window + 1))
        if out_of_ring:
            far = position - window
            self._k[:, :, sinks - out_of_ring : sinks] = rotate(
                self._sink_k[:, :, sinks - out_of_ring :], rope.cos[far], rope.sin[far], interleaved=self._interleaved
            )
        slot = sinks + position % window
        seen = slice(sinks - out_of_ring, sinks + min(position + 1, window))
        x = precise(self._net.embedding[token])
        for index, layer in enumerate(self._layers):
            k, v = self._k[index], self._v[index]
            x = layer.step(x, k, v, slot, seen, cos, sin, self._interleaved, self._eps, self._dtype)
        self._position += 1
        if sinks > position:
            self._remember_sink(position, slot)
        hidden = F.rms_norm(x, x.shape, self._final_norm, self._eps).to(self._dtype)
        return precise(torch.mv(self._head, hidden))

    def _remember_sink(self, position: int, slot: int) -> None:
        """A pass shorter than its sinks: this token becomes one, so its key is kept before RoPE too."""
        rope = self._rope(position + 1, self._k.device, self._dtype)
        back = rotate(self._k[:, :, slot], rope.cos[position], -rope.sin[position], interleaved=self._interleaved)
        self._sink_k[:, :, self._sinks - 1 - position] = back
        self._v[:, :, self._sinks - 1 - position] = self._v[:, :, slot]


class _Layer:
    """One block's weights, ready for single tokens."""

    def __init__(self, block: Block, fast: DynamicWeights | None) -> None:
        self.block, self.fast = block, fast
        self.config = block.config
        self.attn_norm, self.mlp_norm = precise(block.attn_norm), precise(block.mlp_norm)
        self.dynamic_norm = precise(block.dynamic_norm) if fast is not None else None

    def step(
        self,
        x: Tensor,
        k: Tensor,
        v: Tensor,
        slot: int,
        seen: slice,
        cos: Tensor,
        sin: Tensor,
        interleaved: bool,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        """x [D] after the block; this token's key and value go into `slot` of k, v [K, S+W, d]."""
        block, config = self.block, self.config
        y = torch.mv(block.qkv, F.rms_norm(x, x.shape, self.attn_norm, eps).to(dtype)).view(-1, config.head_dim)
        turned, new_v = y[: -config.kv_heads], y[-config.kv_heads :]
        if block.q_norm is not None and block.k_norm is not None:
            q, new_k = turned[: config.heads], turned[config.heads :]
            turned = torch.cat((block.normed(q, block.q_norm), block.normed(new_k, block.k_norm)))
        turned = rotate(turned, cos, sin, interleaved=interleaved)
        k[:, slot], v[:, slot] = turned[config.heads :], new_v
        q = turned[: config.heads].view(1, config.kv_heads, -1, config.head_dim)
        y = F.scaled_dot_product_attention(q, k[None, :, seen], v[None, :, seen])
        x = block.add(x, torch.mv(block.out, y.reshape(-1)), block.attn_post_norm)
        if self.fast is not None:
            x = self._mlp(x, self.dynamic_norm, self.fast.gate_up, self.fast.down, block.dynamic_post_norm, eps, dtype)
        return self._mlp(x, self.mlp_norm, block.gate_up, block.down, block.mlp_post_norm, eps, dtype)

    def _mlp(
        self,
        x: Tensor,
        norm: Tensor | None,
        gate_up: Tensor,
        down: Tensor,
        post_norm: Tensor | None,
        eps: float,
        dtype: torch.dtype,
    ) -> Tensor:
        gate, up = torch.mv(gate_up, F.rms_norm(x, x.shape, norm, eps).to(dtype)).chunk(2)
        return self.block.add(x, torch.mv(down, F.silu(gate) * up), post_norm)
