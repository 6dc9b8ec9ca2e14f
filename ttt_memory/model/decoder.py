"""One-token steps over a fixed number of rotated keys: the same function as the Transformer's, without its overheads.

Keys are kept rotated, in a ring of `window` slots; key j sits in slot j mod window until key j + window replaces it. A
sink that has left the ring is kept before it, turned anew at every step so that it stays at distance `window`.

Legend: L layers, K key/value heads, S sinks, W window, d head width, D hidden.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from ttt_kernels.attention import rotate

from ttt_memory.model.blocks import Block, DynamicWeights, precise
from ttt_memory.model.cache import LayerCache, PassCache
from ttt_memory.model.four_bit import FourBit
from ttt_memory.model.transformer import Transformer, Working

Product = Callable[[Tensor], Tensor]
_STATIC = ("qkv", "out", "gate_up", "down")


class Decoder:
    """Continues a pass token by token. Holds mutable buffers of its own; writes to no state.

    Args:
        net: a network with a window.
        weights: fast weights for computing; None skips the dynamic MLPs.
        cache: what the pass has read, possibly nothing.
    """

    def __init__(self, net: Transformer, weights: Working | None, cache: PassCache) -> None:
        config = net.config
        assert config.window is not None
        self._net, self._window, self._sinks = net, config.window, config.sinks
        self._interleaved = config.block == "paper"
        self._position = cache.length
        like = net.embedding
        shape = (config.layers, config.kv_heads, self._sinks + self._window, config.head_dim)
        self._k, self._v = like.new_zeros(shape), like.new_zeros(shape)
        self._sink_k = like.new_zeros(config.layers, config.kv_heads, self._sinks, config.head_dim)
        self._final_norm = precise(net.final_norm)
        self._head = net.embedding if net.head is None else net.head
        dynamic: list[DynamicWeights | None] = [None] * config.prefix_layers
        dynamic += [None] * config.dynamic_layers if weights is None else list(weights)
        four_bit = net.four_bit()
        self._layers = [
            _Layer(block, fast, k, v, {part: four_bit.get(f"blocks.{index}.{part}") for part in _STATIC})
            for index, (block, fast, k, v) in enumerate(zip(net.layers(), dynamic, self._k, self._v, strict=True))
        ]
        self._load([*cache.prefix.layers, *cache.suffix.layers])

    @property
    def kv_length(self) -> int:
        """Keys held per layer: constant, whatever was read."""
        return self._k.shape[2]

    @torch.no_grad()
    def _load(self, caches: list[LayerCache]) -> None:
        held = caches[0].recent.k.shape[2]
        at = torch.arange(self._position - held, self._position, device=self._k.device)
        slots = self._sinks + at % self._window
        rope = self._net.rope(self._position + 1, self._k.device, self._k.dtype)
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
        departed = min(sinks, max(0, position - window + 1))
        if departed:
            kept = slice(sinks - departed, sinks)
            self._k[:, :, kept] = self._rotated(self._sink_k[:, :, kept], position - window)
        slot = sinks + position % window
        eye = torch.eye(self._k.shape[3], dtype=precise(self._k[:0]).dtype, device=self._k.device)
        moment = _Moment(slot, slice(sinks - departed, sinks + min(position + 1, window)), self._rotated(eye, position))
        x = precise(self._net.embedding[token])
        for layer in self._layers:
            x = layer.step(x, moment)
        if position < sinks:
            self._remember_sink(position, slot)
        self._position += 1
        hidden = _normed(x, self._final_norm, self._net.config.norm_eps, self._k.dtype)
        return precise(torch.mv(self._head, hidden))

    def _rotated(self, x: Tensor, position: int) -> Tensor:
        rope = self._net.rope(position + 1, self._k.device, self._k.dtype)
        return rotate(x, rope.cos[position], rope.sin[position], interleaved=self._interleaved)

    def _remember_sink(self, position: int, slot: int) -> None:
        """A pass that began with fewer tokens than sinks: this one is a sink, so its key is kept before RoPE too."""
        rope = self._net.rope(position + 1, self._k.device, self._k.dtype)
        back = rotate(self._k[:, :, slot], rope.cos[position], -rope.sin[position], interleaved=self._interleaved)
        self._sink_k[:, :, self._sinks - 1 - position] = back
        self._v[:, :, self._sinks - 1 - position] = self._v[:, :, slot]


class _Moment(NamedTuple):
    """What all layers share at one step.

    Attributes:
        slot: where this token's key and value go.
        seen: slots that hold visible keys.
        turn: [d, d], RoPE at this position as a matrix: x @ turn.
    """

    slot: int
    seen: slice
    turn: Tensor


class _Layer:
    """One block, ready for single tokens; k, v [K, S + W, d] are its part of the decoder's buffers."""

    def __init__(
        self, block: Block, fast: DynamicWeights | None, k: Tensor, v: Tensor, four_bit: dict[str, FourBit | None]
    ) -> None:
        self._block, self._fast, self._k, self._v = block, fast, k, v
        self._heads, self._eps, self._dtype = block.config.heads, block.config.norm_eps, block.qkv.dtype
        self._attn_norm, self._mlp_norm = precise(block.attn_norm), precise(block.mlp_norm)
        self._qkv, self._out, self._gate_up, self._down = (
            _product(getattr(block, part), four_bit[part]) for part in _STATIC
        )
        self._dynamic_norm = self._mlp_norm if fast is None else precise(block.dynamic_norm)

    def step(self, x: Tensor, moment: _Moment) -> Tensor:
        """x [D] after the block; its key and value are now in the buffers."""
        block, k, v = self._block, self._k, self._v
        heads, width = self._heads, k.shape[2]
        y = self._qkv(_normed(x, self._attn_norm, self._eps, self._dtype)).view(-1, width)
        turning = y[: heads + len(k)]
        if block.q_norm is not None and block.k_norm is not None:
            turning = torch.cat(
                (block.normed(turning[:heads], block.q_norm), block.normed(turning[heads:], block.k_norm))
            )
        turned = precise(turning) @ moment.turn
        k[:, moment.slot] = turned[heads:]
        v[:, moment.slot] = y[heads + len(k) :]
        # Query heads of one key/value head are its queries: no copy of keys, no mask.
        q = turned[:heads].to(self._dtype).view(1, len(k), -1, width)
        y = F.scaled_dot_product_attention(q, k[None, :, moment.seen], v[None, :, moment.seen])
        x = block.add(x, self._out(y.reshape(-1)), block.attn_post_norm)
        if self._fast is not None:
            gate_up, down = (_product(weight, None) for weight in self._fast)
            x = self._mlp(x, self._dynamic_norm, gate_up, down, block.dynamic_post_norm)
        return self._mlp(x, self._mlp_norm, self._gate_up, self._down, block.mlp_post_norm)

    def _mlp(self, x: Tensor, norm: Tensor, gate_up: Product, down: Product, post_norm: Tensor | None) -> Tensor:
        gate, up = gate_up(_normed(x, norm, self._eps, self._dtype)).chunk(2)
        return self._block.add(x, down(F.silu(gate) * up), post_norm)


def _product(weight: Tensor, four_bit: FourBit | None) -> Product:
    return partial(torch.mv, weight) if four_bit is None else four_bit.matvec


def _normed(x: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """RMSNorm of one vector [D]: the factor as a Python number takes a third of the calls."""
    if x.device.type != "cpu":
        return F.rms_norm(x, x.shape, scale, eps).to(dtype)
    return ((x * (1.0 / math.sqrt(x.dot(x).item() / len(x) + eps))) * scale).to(dtype)
