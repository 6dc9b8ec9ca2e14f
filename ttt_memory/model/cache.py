"""Keys and values of one pass: explicit state in, explicit state out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from ttt_kernels.attention import KeyValues

from ttt_memory.model.config import ModelConfig


@dataclass(frozen=True)
class LayerCache:
    """One layer: the last `window` keys (before RoPE) and values, and those of the sinks, [B, Hkv, N, D] each."""

    recent: KeyValues
    sinks: KeyValues

    def extend(self, k: Tensor, v: Tensor, config: ModelConfig) -> LayerCache:
        """The cache after the tokens of k, v [B, Hkv, T, D]."""
        keys, values = torch.cat((self.recent.k, k), dim=2), torch.cat((self.recent.v, v), dim=2)
        if config.window is not None:
            keys, values = keys[:, :, -config.window :], values[:, :, -config.window :]
        return LayerCache(KeyValues(keys, values), self.fill_sinks(k, v, config.sinks))

    def fill_sinks(self, k: Tensor, v: Tensor, count: int) -> KeyValues:
        """The sinks known once these tokens are read: the first `count` of the pass."""
        missing = count - self.sinks.k.shape[2]
        if missing <= 0:
            return self.sinks
        return KeyValues(
            torch.cat((self.sinks.k, k[:, :, :missing]), dim=2), torch.cat((self.sinks.v, v[:, :, :missing]), dim=2)
        )

    def detach(self) -> LayerCache:
        """The same values outside any autograd graph."""
        return LayerCache(*(KeyValues(pair.k.detach(), pair.v.detach()) for pair in (self.recent, self.sinks)))


class Cache(NamedTuple):
    """Cached layers of a stack of blocks, after `length` tokens of the pass."""

    length: int
    layers: tuple[LayerCache, ...]

    @classmethod
    def empty(cls, config: ModelConfig, layers: int, batch: int, like: Tensor) -> Cache:
        """Nothing read yet; dtype and device are those of `like`."""
        none = like.new_empty(batch, config.kv_heads, 0, config.head_dim)
        pair = KeyValues(none, none)
        return cls(0, (LayerCache(pair, pair),) * layers)

    def detach(self) -> Cache:
        """The same values outside any autograd graph."""
        return Cache(self.length, tuple(layer.detach() for layer in self.layers))


class PassCache(NamedTuple):
    """Cache of a whole network: its blocks without dynamic MLPs, and those with."""

    prefix: Cache
    suffix: Cache

    @property
    def length(self) -> int:
        """Tokens read in this pass."""
        return self.prefix.length
