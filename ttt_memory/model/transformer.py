"""The TTT-E2E Transformer: explicit fast weights and cache in, explicit cache out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ttt_kernels.cross_entropy import linear_cross_entropy

from ttt_memory.model.blocks import Block, DynamicWeights, precise, rms_norm
from ttt_memory.model.cache import Cache, PassCache
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.four_bit import FourBit, four_bit_forms
from ttt_memory.model.rope import RopeTables
from ttt_memory.model.state import FastWeights

Working = Sequence[DynamicWeights]
"""Fast weights as the blocks compute with them, one entry per dynamic layer."""


def working(state: FastWeights, dtype: torch.dtype) -> list[DynamicWeights]:
    """Fast weights fused and cast for computing; differentiable."""
    return [
        DynamicWeights(torch.cat((gate, up)).to(dtype), down.to(dtype))
        for gate, up, down in zip(state.gate, state.up, state.down, strict=True)
    ]


class Transformer(nn.Module):
    """Blocks without dynamic MLPs (the prefix), then blocks with (the suffix).

    Parameters are created empty: load a state dictionary (`assign=True` keeps memory-mapped tensors) or `initialise`.
    W0 and the learned inner rates are parameters too. Everywhere `weights=None` means that the dynamic MLPs
    are skipped. `impl` names the attention implementation of `ttt_kernels`; "reference" and "triton" can be
    differentiated twice.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Parameter(torch.empty(config.vocab_size, config.hidden))
        self.blocks = nn.ModuleList(
            Block(config.of_block(index), dynamic=index >= config.prefix_layers) for index in range(config.layers)
        )
        self.final_norm = nn.Parameter(torch.empty(config.hidden))
        self.head = None if config.tied else nn.Parameter(torch.empty(config.vocab_size, config.hidden))
        self.inner_rates = nn.Parameter(torch.full((config.dynamic_layers,), config.inner.rate))
        self.rope = RopeTables(config.head_dim, config.rope_theta, interleaved=config.block == "paper")
        self._four_bit: dict[str, FourBit] | None = None
        self._prefix = [self._block(index) for index in range(config.prefix_layers)]
        self._suffix = [self._block(index) for index in range(config.prefix_layers, config.layers)]

    def _block(self, index: int) -> Block:
        block = self.blocks[index]
        assert isinstance(block, Block)
        return block

    def layers(self) -> list[Block]:
        """All blocks, first to last."""
        return self._prefix + self._suffix

    def four_bit(self) -> dict[str, FourBit]:
        """Static matrices of the blocks that have a four-bit form, by parameter name; derived at the first call."""
        if self._four_bit is None:
            static = (
                (name, p) for name, p in self.named_parameters() if name.startswith("blocks.") and "w0_" not in name
            )
            self._four_bit = four_bit_forms(static)
        return self._four_bit

    @property
    def dtype(self) -> torch.dtype:
        """Computing precision: that of the weights. The residual stream is fp32 at least."""
        return self.embedding.dtype

    def initialise(self, generator: torch.Generator, std: float = 0.02) -> None:
        """Draws matrices from a normal distribution, sets norms to 1 and inner rates to the configured rate."""
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name == "inner_rates":
                    parameter.fill_(self.config.inner.rate)
                elif parameter.ndim == 1:
                    parameter.fill_(1.0)
                else:
                    parameter.normal_(0.0, std, generator=generator)

    def initial_state(self) -> FastWeights:
        """W0 in fp32 (float64 for a float64 network), differentiable with respect to the parameters."""
        halves = [precise(block.w0_gate_up).chunk(2) for block in self._suffix]
        return FastWeights(
            gate=tuple(gate for gate, _ in halves),
            up=tuple(up for _, up in halves),
            down=tuple(precise(block.w0_down) for block in self._suffix),
        )

    def empty_cache(self, batch: int = 1) -> PassCache:
        """The cache of a pass that has read nothing."""
        prefix, suffix = len(self._prefix), len(self._suffix)
        like = self.embedding
        return PassCache(Cache.empty(self.config, prefix, batch, like), Cache.empty(self.config, suffix, batch, like))

    def embed(self, tokens: Tensor) -> Tensor:
        """Residual stream [B, T, D] of tokens [B, T] int64."""
        return precise(F.embedding(tokens, self.embedding))

    def prefix(self, x: Tensor, cache: Cache, *, impl: str = "auto") -> tuple[Tensor, Cache]:
        """Blocks without dynamic MLPs: [B, T, D] to [B, T, D]; independent of the fast weights."""
        rope, layers = self.rope(cache.length + x.shape[1], x.device, x.dtype), []
        for block, layer in zip(self._prefix, cache.layers, strict=True):
            x, after = block.attend(x, layer, cache.length, rope, impl)
            x = block.static(x)
            layers.append(after)
        return x, Cache(cache.length + x.shape[1], tuple(layers))

    def suffix(self, x: Tensor, weights: Working | None, cache: Cache, *, impl: str = "auto") -> tuple[Tensor, Cache]:
        """Blocks with dynamic MLPs, then the final norm: [B, T, D] to hidden states [B, T, D] in `dtype`."""
        rope, layers = self.rope(cache.length + x.shape[1], x.device, x.dtype), []
        for index, (block, layer) in enumerate(zip(self._suffix, cache.layers, strict=True)):
            x, after = block.attend(x, layer, cache.length, rope, impl)
            if weights is not None:
                x = block.dynamic(x, weights[index])
            x = block.static(x)
            layers.append(after)
        hidden = rms_norm(x, self.final_norm, self.config.norm_eps, self.dtype)
        return hidden, Cache(cache.length + x.shape[1], tuple(layers))

    def read(
        self, tokens: Tensor, weights: Working | None, cache: PassCache, *, impl: str = "auto"
    ) -> tuple[Tensor, PassCache]:
        """Hidden states [B, T, D] of the next tokens [B, T] of a pass, and the cache after them."""
        x, prefix = self.prefix(self.embed(tokens), cache.prefix, impl=impl)
        hidden, suffix = self.suffix(x, weights, cache.suffix, impl=impl)
        return hidden, PassCache(prefix, suffix)

    def logits(self, hidden: Tensor) -> Tensor:
        """Scores [..., V] of the next token, fp32 at least."""
        return precise(F.linear(hidden, self.embedding if self.head is None else self.head))

    def nll(self, hidden: Tensor, targets: Tensor, *, impl: str = "auto") -> Tensor:
        """Nats [N] of targets [N] given hidden states [N, D]; impl as in `ttt_kernels.cross_entropy`."""
        weight = self.embedding if self.head is None else self.head
        return linear_cross_entropy(hidden, weight.detach() if impl == "chunked" else weight, targets, impl=impl)

    def forward(
        self, tokens: Tensor, state: FastWeights | None = None, cache: PassCache | None = None, *, impl: str = "auto"
    ) -> tuple[Tensor, PassCache]:
        """Logits [B, T, V] of tokens [B, T] under `state` (None: dynamic MLPs skipped), and the cache after them."""
        cache = self.empty_cache(tokens.shape[0]) if cache is None else cache
        weights = None if state is None else working(state, self.dtype)
        hidden, cache = self.read(tokens, weights, cache, impl=impl)
        return self.logits(hidden), cache
