"""Adjoint of reading one block: from cotangents of what it left behind to cotangents of what it was given.

With a mini-batch's loss `L`, inner gradient `G` and new cache `K`, everything that a block contributes to the outer
gradient is the gradient of one scalar

    w L + <G, u> + <K, v>,

`w` the loss's weight in the outer loss, `u` the cotangent of `G` that the write passes back, `v` that of the cache. The
cache is a constant for `G`, not for the outer gradient.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor
from ttt_kernels.attention import KeyValues

from ttt_memory.model.blocks import DynamicWeights
from ttt_memory.model.cache import Cache, LayerCache
from ttt_memory.model.fold import fast_impl, fast_loss
from ttt_memory.model.transformer import Transformer
from ttt_training.passes import Step
from ttt_training.tangent import loss_and_derivative

CacheCotangent = list[Tensor | None]
"""In the order of `cache_tensors`; None where nothing later depends on the entry."""


class Pulled(NamedTuple):
    """Cotangents of a block's inputs.

    Attributes:
        loss: mean loss of the block, nats per token; NaN for context.
        weights: of the fast weights as computed with, or None where the block does not depend on them.
        cache: of the cache before the block; None where there was none or it is held constant.
        x: [1, n, D] of the block's input, where wanted.
        parameters: of the named parameters; None where the block does not depend on them.
    """

    loss: float
    weights: list[Tensor | None]
    cache: CacheCotangent | None
    x: Tensor | None
    parameters: dict[str, Tensor | None]


def copies(masters: Sequence[Tensor], dtype: torch.dtype) -> list[Tensor]:
    """Fast weights as the blocks compute with them: leaves of their own."""
    return [master.detach().to(dtype).requires_grad_() for master in masters]


def paired(tensors: Sequence[Tensor]) -> list[DynamicWeights]:
    """Gate-and-up, down, gate-and-up, ... as one entry per layer."""
    return [DynamicWeights(*pair) for pair in zip(tensors[::2], tensors[1::2], strict=True)]


def cache_tensors(cache: Cache) -> list[Tensor]:
    """Keys and values, recent then sinks, layer by layer."""
    return [t for layer in cache.layers for pair in (layer.recent, layer.sinks) for t in pair]


def cache_of(length: int, tensors: Sequence[Tensor]) -> Cache:
    """Inverse of `cache_tensors`."""
    layers = (tensors[at : at + 4] for at in range(0, len(tensors), 4))
    return Cache(length, tuple(LayerCache(KeyValues(*four[:2]), KeyValues(*four[2:])) for four in layers))


@contextmanager
def tracked(parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """These parameters are differentiated inside, and not outside."""
    for parameter in parameters.values():
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in parameters.values():
            parameter.requires_grad_(False)


def pull_block(
    net: Transformer,
    step: Step,
    x: Tensor,
    weights: Sequence[Tensor],
    cache: Cache,
    *,
    inner: Sequence[Tensor] | None,
    after: CacheCotangent | None,
    parameters: Mapping[str, Tensor],
    kv_grad: bool,
    want_x: bool,
    method: str,
) -> Pulled:
    """Adjoint of one block of the suffix.

    Args:
        net: the network; no parameter requires a gradient.
        step: tokens and loss weight.
        x: [1, n, D], the suffix's input.
        weights: leaves that the block computes with (`copies`).
        cache: before the block.
        inner: cotangent of the inner gradient, one tensor per weight; None: no write, or a first-order one.
        after: cotangent of the cache after the block; None: nothing later depends on it.
        parameters: of the suffix, to be differentiated.
        kv_grad: differentiate with respect to the cache too.
        want_x: give the cotangent of `x`.
        method: for `inner`: "reverse" differentiates the inner gradient, "tangent" the loss's derivative along `inner`,
            which is the same by symmetry of second derivatives and about a third cheaper.
    """
    entries = [tensor.detach().requires_grad_(kv_grad) for tensor in cache_tensors(cache)]
    start = x.detach().requires_grad_(want_x)
    scalar = _Scalar()
    with tracked(parameters), torch.enable_grad():
        before = cache_of(cache.length, entries)
        loss = None
        if inner is not None and method == "tangent":
            assert step.targets is not None
            along = paired([tensor.to(net.dtype) for tensor in inner])
            loss, slope, left = loss_and_derivative(net, start, paired(weights), along, before, step.targets)
            scalar.add(slope, torch.ones_like(slope))
        else:
            impl = fast_impl(net) if inner is None else _twice(net)
            hidden, left = net.suffix(start, paired(weights), before, impl=impl)
            if step.targets is not None:
                trained = any(name in parameters for name in ("embedding", "head"))
                loss = net.nll(hidden[0], step.targets, impl=_twice(net) if trained else fast_loss(net)).mean()
            if inner is not None:
                assert loss is not None
                for grad, cot in zip(torch.autograd.grad(loss, weights, create_graph=True), inner, strict=True):
                    scalar.add(grad, cot.to(grad.dtype))
        if loss is not None:
            scalar.add(loss, torch.full_like(loss, step.weight))
        for tensor, cached_cot in zip(cache_tensors(left), after or [], strict=after is not None):
            if cached_cot is not None and tensor.requires_grad:
                scalar.add(tensor, cached_cot)
        inputs = [*weights, *entries * kv_grad, *[start] * want_x, *parameters.values()]
        pulled = scalar.gradient(inputs)
    here, rest = pulled[: len(weights)], pulled[len(weights) :]
    cached, rest = (rest[: len(entries)], rest[len(entries) :]) if kv_grad else (None, rest)
    d_x, rest = (rest[0], rest[1:]) if want_x else (None, rest)
    return Pulled(
        loss=float("nan") if loss is None else float(loss.detach()),
        weights=here,
        cache=None if step.opens else cached,
        x=d_x,
        parameters=dict(zip(parameters, rest, strict=True)),
    )


class _Scalar:
    """The sum of <output, cotangent> whose gradient is wanted."""

    def __init__(self) -> None:
        self._outputs: list[Tensor] = []
        self._cotangents: list[Tensor] = []

    def add(self, output: Tensor, cotangent: Tensor) -> None:
        self._outputs.append(output)
        self._cotangents.append(cotangent)

    def gradient(self, inputs: Sequence[Tensor]) -> list[Tensor | None]:
        if not self._outputs:
            return [None] * len(inputs)
        return list(torch.autograd.grad(self._outputs, inputs, self._cotangents, allow_unused=True))


def _twice(net: Transformer) -> str:
    """Implementation with two derivatives, the head's included."""
    return "reference" if net.embedding.device.type == "cpu" else "auto"
