"""The frozen blocks of a text, computed once for everyone who reads it.

Names that are compared differ in the fast weights alone: what goes into the dynamic blocks is the same for all of them.
Outputs are found by the network's digest and by all that its prefix has read in the pass, so they are the bits that
computing them again would give.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from ttt_memory.model.cache import Cache, LayerCache
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.transformer import Transformer
from ttt_training.evaluate.subjects import Subject
from ttt_training.kept_prefix import prefix_identity

LIMIT = 1 << 30
"""Bytes of outputs that a process keeps; the longest unused go first. 16,384 tokens of SmolLM2-135M take 43 MB."""


def sharing(subject: Subject) -> Subject:
    """The same subject, whose prefix is computed only for texts that no other has read lately."""
    return replace(subject, model=replace(subject.model, net=SharedPrefix.of(subject.model.net)))


class _Passed(NamedTuple):
    """What one pass has read so far: its name, and the inputs [1, n, D] from which a cache can be made again."""

    key: str
    inputs: tuple[Tensor, ...]


class _Place(Cache):
    """A cache that knows its pass. Without layers: the outputs were found, so nobody needed them yet."""

    passed: _Passed


class SharedPrefix(Transformer):
    """A network that looks its prefix's outputs up. Without gradients, and for whole passes from their first token."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__(config)
        self._identity = ""

    @classmethod
    def of(cls, net: Transformer) -> SharedPrefix:
        """The same network: its tensors are shared, not copied."""
        with torch.device("meta"):
            shared = cls(net.config)
        shared.load_state_dict(net.state_dict(), strict=True, assign=True)
        shared._identity = prefix_identity(net)
        return shared.requires_grad_(False).eval()

    def prefix(self, x: Tensor, cache: Cache, *, impl: str = "auto") -> tuple[Tensor, Cache]:
        """As the network's own."""
        before = cache.passed if isinstance(cache, _Place) else _Passed(self._identity, ())
        if torch.is_grad_enabled() or (cache.length and not isinstance(cache, _Place)):
            return super().prefix(x, cache, impl=impl)
        here = _Passed(_named(before.key, impl, x), (*before.inputs, x))
        layers: tuple[LayerCache, ...] = ()
        found = _outputs.find(here.key)
        if found is None:
            if len(cache.layers) != self.config.prefix_layers:
                cache = self._read_again(before.inputs, impl)
            found, after = super().prefix(x, cache, impl=impl)
            layers = after.layers
            _outputs.add(here.key, found)
        place = _Place(cache.length + x.shape[1], layers)
        place.passed = here
        return found, place

    def _read_again(self, inputs: tuple[Tensor, ...], impl: str) -> Cache:
        cache = self.empty_cache().prefix
        for x in inputs:
            _, cache = super().prefix(x, cache, impl=impl)
        return cache


def _named(before: str, impl: str, x: Tensor) -> str:
    sha = hashlib.sha256(f"{before}{impl}{x.dtype}{tuple(x.shape)};".encode())
    sha.update(x.detach().cpu().contiguous().view(torch.uint8).numpy().data.cast("B"))
    return sha.hexdigest()


class _Outputs:
    def __init__(self, limit: int) -> None:
        self._limit, self._size = limit, 0
        self._kept: OrderedDict[str, Tensor] = OrderedDict()

    def find(self, key: str) -> Tensor | None:
        if key in self._kept:
            self._kept.move_to_end(key)
        return self._kept.get(key)

    def add(self, key: str, output: Tensor) -> None:
        self._kept[key] = output
        self._size += output.nbytes
        while self._size > self._limit:
            _, oldest = self._kept.popitem(last=False)
            self._size -= oldest.nbytes


_outputs = _Outputs(LIMIT)
