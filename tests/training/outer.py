"""Random networks and sequences for the outer loop's tests, and the fold restated naively: one autograd graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from ttt_training.adjoint import Recall

from ttt_memory.model.blocks import DynamicWeights
from ttt_memory.model.cache import PassCache
from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.model.fold import Segment
from ttt_memory.model.inner import write
from ttt_memory.model.transformer import Transformer

LLAMA = ModelConfig(
    vocab_size=60,
    hidden=16,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=4,
    mlp=24,
    dynamic_layers=2,
    dynamic_mlp=20,
    window=20,
    sinks=3,
    segment_tokens=64,
    context_tokens=24,
    append_context_tokens=8,
    inner=InnerConfig(mini_batch=12, rate=0.7),
)
PAPER = replace(LLAMA, block="paper", kv_heads=4, sinks=0, tied=False)


def network(config: ModelConfig = LLAMA, *, dtype: torch.dtype = torch.float64, **changes: Any) -> Transformer:
    net = Transformer(replace(config, **changes))
    net.initialise(torch.Generator().manual_seed(0), std=0.3)
    return net.to(dtype)


def segment(context: int, tokens: int, *, seed: int = 0, vocabulary: int = 60) -> Segment:
    drawn = np.random.default_rng([seed, context, tokens]).integers(0, vocabulary, context + tokens).astype(np.int32)
    return Segment(drawn[:context], drawn[context:])


MIXED = (segment(0, 30), segment(24, 40), segment(7, 10), segment(17, 23))
"""A fresh document, a full context, a short append, one whose mini-batches straddle the window: tails everywhere."""


def naive_loss(
    net: Transformer,
    segments: Sequence[Segment],
    *,
    order: int = 2,
    writes: bool = True,
    kv_grad: bool = True,
    rate_scale: float = 1.0,
    recall: Recall | None = None,
) -> Tensor:
    """The outer loss as one graph over everything: nothing kept, nothing rebuilt."""
    config = net.config
    blocks = net.layers()[config.prefix_layers :]
    anchors = [tensor for block in blocks for tensor in (block.w0_gate_up, block.w0_down)]
    masters, rates = list(anchors), net.inner_rates * rate_scale
    total = count = 0.0

    def current(*, alias: bool) -> list[Tensor]:
        """The fast weights; as new nodes, so that an inner gradient does not flow through the cache before it."""
        nonlocal masters
        masters = [master.clone() for master in masters] if alias else masters
        return masters

    for one in segments:
        for nll, targets, share in _blocks(net, one, current, kv_grad):
            total, count = total + nll * targets, count + targets
            if writes:
                grads = torch.autograd.grad(nll, masters, create_graph=True)
                grads = tuple(grad.detach() for grad in grads) if order == 1 else grads
                masters = list(write(masters, grads, rates, config.inner, share=share, anchors=anchors).weights)
    loss = total / count
    if recall is not None:
        spans = [(nll, n) for nll, n, _ in _blocks(net, recall.segment, current, kv_grad)]
        loss = loss + recall.weight * sum(nll * n for nll, n in spans) / sum(n for _, n in spans)
    return loss


def _blocks(net: Transformer, one: Segment, masters: Any, kv_grad: bool) -> Iterator[tuple[Tensor, int, float]]:
    size, cache = net.config.inner.mini_batch, net.empty_cache()

    def advance(tokens: Tensor, *, alias: bool) -> Tensor:
        nonlocal cache
        tensors = masters(alias=alias)
        weights = [DynamicWeights(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)]
        hidden, cache = net.read(tokens[None], weights, cache, impl="reference")
        if not kv_grad:
            cache = PassCache(cache.prefix, cache.suffix.detach())
        return hidden[0]

    context, tokens = (torch.from_numpy(ids.astype(np.int64)) for ids in (one.context, one.tokens))
    before = context if len(context) else torch.tensor([net.config.start_token])
    for first in range(0, len(before) - 1, size):
        advance(before[:-1][first : first + size], alias=False)
    stream = torch.cat((before[-1:], tokens))
    for first in range(0, len(tokens), size):
        span = stream[first : first + size + 1]
        nll = net.nll(advance(span[:-1], alias=True), span[1:], impl="reference").mean()
        yield nll, len(span) - 1, (len(span) - 1) / size


def naive_gradient(net: Transformer, segments: Sequence[Segment], **options: Any) -> tuple[float, dict[str, Tensor]]:
    """`naive_loss` and its gradient by every parameter that it depends on."""
    named = dict(net.requires_grad_(True).named_parameters())
    loss = naive_loss(net, segments, **options)
    grads = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    found = {name: grad for name, grad in zip(named, grads, strict=True) if grad is not None}
    return float(loss.detach()), found


def worst(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    """Largest relative L2 distance of a tensor."""
    assert set(ours) == set(theirs)
    return max(float((ours[name] - theirs[name]).norm() / theirs[name].norm().clamp(min=1e-30)) for name in theirs)


class Words:
    """An endless source of short sequences with something to learn; `spoil`: steps whose sequence holds token 7."""

    def __init__(self, *, tokens: int = 40, spoil: tuple[int, ...] = (), end: int | None = None) -> None:
        self._tokens, self._spoil, self._end, self._next = tokens, spoil, end, 0

    def __iter__(self) -> Iterator[tuple[Segment, ...]]:
        return self

    def __next__(self) -> tuple[Segment, ...]:
        if self._next == self._end:
            raise StopIteration
        random = np.random.default_rng([11, self._next])
        ids = (np.arange(self._tokens) * int(random.integers(1, 4)) % 23 + 30).astype(np.int32)
        if self._next in self._spoil:
            ids[5] = 7
        self._next += 1
        half = self._tokens // 2
        return Segment(ids[:0], ids[:half]), Segment(ids[half - 4 : half], ids[half:])

    def state(self) -> dict[str, Any]:
        return {"next": self._next}

    def seek(self, state: dict[str, Any]) -> None:
        self._next = state["next"]
