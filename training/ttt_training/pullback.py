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


class Leaves(NamedTuple):
    """What a block is given, as leaves of a graph: [1, n, D] of input, fast weights as computed with, cache before."""

    x: Tensor
    weights: Sequence[Tensor]
    cache: Cache


class BlockGraph(NamedTuple):
    """A block that was read with a graph: its leaves, [1, n, D] of the final norm, cache after."""

    leaves: Leaves
    hidden: Tensor
    left: Cache


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


def leaves(x: Tensor, weights: Sequence[Tensor], cache: Cache, *, kv_grad: bool, want_x: bool) -> Leaves:
    """Leaves of one block.

    Args:
        x: [1, n, D], the suffix's input.
        weights: leaves that the block computes with (`copies`).
        cache: before the block.
        kv_grad: differentiate with respect to the cache too.
        want_x: and with respect to `x`.
    """
    entries = [tensor.detach().requires_grad_(kv_grad) for tensor in cache_tensors(cache)]
    return Leaves(x.detach().requires_grad_(want_x), weights, cache_of(cache.length, entries))


def read_block(net: Transformer, given: Leaves, parameters: Mapping[str, Tensor]) -> BlockGraph:
    """Reads a block that nothing is written from, with its graph."""
    with tracked(parameters), torch.enable_grad():
        hidden, left = net.suffix(given.x, paired(given.weights), given.cache, impl=fast_impl(net))
    return BlockGraph(given, hidden, left)


def pull_block(
    net: Transformer,
    step: Step,
    given: Leaves,
    *,
    inner: Sequence[Tensor] | None,
    after: CacheCotangent | None,
    parameters: Mapping[str, Tensor],
    method: str,
    read: BlockGraph | None = None,
) -> Pulled:
    """Adjoint of one block of the suffix.

    Args:
        net: the network; no parameter requires a gradient.
        step: tokens and loss weight.
        given: the block's leaves.
        inner: cotangent of the inner gradient, one tensor per weight; None: no write, or a first-order one.
        after: cotangent of the cache after the block; None: nothing later depends on it.
        parameters: of the suffix, to be differentiated.
        method: for `inner`: "reverse" differentiates the inner gradient, "tangent" the loss's derivative along `inner`,
            which is the same by symmetry of second derivatives and about a third cheaper.
        read: the block's graph, where it was kept; only without `inner`.
    """
    x, weights, cache = given
    entries, scalar = cache_tensors(cache), _Scalar()
    if inner is None and read is None:
        read = read_block(net, given, parameters)
    with tracked(parameters), torch.enable_grad():
        loss = None
        if inner is not None and method == "tangent":
            assert step.targets is not None
            along = paired([tensor.to(net.dtype) for tensor in inner])
            loss, slope, left = loss_and_derivative(net, x, paired(weights), along, cache, step.targets)
            scalar.add(slope, torch.ones_like(slope))
        else:
            hidden, left = read[1:] if read else net.suffix(x, paired(weights), cache, impl=_twice(net))
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
        asked = [*weights, *entries, x, *parameters.values()]
        found = iter(scalar.gradient([tensor for tensor in asked if tensor.requires_grad]))
        pulled = [next(found) if tensor.requires_grad else None for tensor in asked]
    here, pulled = pulled[: len(weights)], pulled[len(weights) :]
    cached, (d_x, *rest) = pulled[: len(entries)], pulled[len(entries) :]
    kept = any(tensor.requires_grad for tensor in entries) and not step.opens
    return Pulled(
        loss=float("nan") if loss is None else float(loss.detach()),
        weights=here,
        cache=cached if kept else None,
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
