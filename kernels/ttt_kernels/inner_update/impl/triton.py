"""Triton path of the inner update: a deterministic norm in two stages, then one pass over each weight.

Nothing is read back to the host and no float is added atomically: each block's sum of squares has a slot of its own,
one program adds the slots in order. The backward passes are plain PyTorch on what the Functions were given, so they
can be differentiated again. Maths: README of the operation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttt_kernels._launch import runnable
from ttt_kernels.inner_update.newton_schulz import orthogonalise
from ttt_kernels.inner_update.types import InnerStep

BLOCK = 8192
"""Entries per program and partial sum; it is part of what makes the sums reproducible."""


def inner_update(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    rates: Tensor,
    *,
    rule: str,
    clip: float,
    decay: float,
    anchors: Sequence[Tensor] | None,
) -> InnerStep:
    """See `ttt_kernels.inner_update.inner_update`."""
    kept = tuple(anchors) if decay and anchors is not None else ()
    _check(weights, grads, rates, kept)
    norm = _Norm.apply(*grads)  # type: ignore[no-untyped-call]
    if rule == "muon":
        # The clip scales, and orthogonalising takes any scale away again.
        grads, clip = [orthogonalise(grad.float()) for grad in grads], 0.0
    after = _Write.apply(clip, decay, rates, norm, *weights, *grads, *kept)  # type: ignore[no-untyped-call]
    return InnerStep(tuple(after), norm)


def inner_update_in_place(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    rates: Tensor,
    *,
    rule: str,
    clip: float,
    decay: float,
    anchors: Sequence[Tensor] | None,
) -> InnerStep:
    """Writes into `weights`, no graph. Where the norm is not finite nothing is written, decided on the device."""
    kept = tuple(anchors) if decay and anchors is not None else ()
    _check(weights, grads, rates, kept)
    for index, weight in enumerate(weights):
        if not weight.is_contiguous():
            raise ValueError(f"weights[{index}] has strides {weight.stride()}, expected a contiguous tensor")
    with torch.no_grad():
        norm = norm_of(grads)
        if rule == "muon":
            grads, clip = [orthogonalise(grad.float()) for grad in grads], 0.0
        for index, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
            anchor = kept[index] if kept else None
            write_one(weight, grad, weight, anchor, rates[index : index + 1], norm, clip, decay, guarded=True)
    return InnerStep(tuple(weights), norm)


def _check(weights: Sequence[Tensor], grads: Sequence[Tensor], rates: Tensor, anchors: Sequence[Tensor]) -> None:
    for index, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
        if weight.dtype != torch.float32:
            raise ValueError(f"weights[{index}] has dtype {weight.dtype}, expected torch.float32 for impl='triton'")
        runnable(f"weights[{index}]", weight)
        runnable(f"grads[{index}]", grad)
    for name, tensors in (("weights", weights), ("grads", grads), ("anchors", anchors), ("rates", (rates,))):
        for index, tensor in enumerate(tensors):
            if tensor.device != weights[0].device:
                raise ValueError(f"{name}[{index}] is on {tensor.device}, expected {weights[0].device} like weights[0]")


class _Norm(torch.autograd.Function):
    """sqrt of the sum of squares over all tensors, a scalar; its slope at zero is taken as zero."""

    @staticmethod
    def forward(ctx: Any, *grads: Tensor) -> Tensor:
        norm = norm_of(grads)
        ctx.save_for_backward(norm, *grads)
        return norm

    @staticmethod
    def backward(ctx: Any, v: Tensor) -> tuple[Tensor | None, ...]:
        norm, *grads = ctx.saved_tensors
        moving = norm > 0
        share = torch.where(moving, v / torch.where(moving, norm, torch.ones_like(norm)), torch.zeros_like(v))
        return tuple(
            (grad * share).to(grad.dtype) if needed else None
            for grad, needed in zip(grads, ctx.needs_input_grad, strict=True)
        )


class _Write(torch.autograd.Function):
    """W - rate * factor * G - decay * (W - W0) for every tensor; factor = min(1, clip / norm), or 1 without a clip."""

    @staticmethod
    def forward(
        ctx: Any, clip: float, decay: float, rates: Tensor, norm: Tensor, *tensors: Tensor
    ) -> tuple[Tensor, ...]:
        count = rates.shape[0]
        weights, grads, anchors = tensors[:count], tensors[count : 2 * count], tensors[2 * count :]
        after = []
        for index, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
            old = weight.contiguous()
            new = torch.empty_like(old)
            anchor = anchors[index] if anchors else None
            write_one(old, grad, new, anchor, rates[index : index + 1], norm, clip, decay, guarded=False)
            after.append(new)
        ctx.save_for_backward(rates, norm, *grads)
        ctx.clip, ctx.decay, ctx.anchors = clip, decay, [anchor.dtype for anchor in anchors]
        return tuple(after)

    @staticmethod
    def backward(ctx: Any, *v: Tensor) -> tuple[Tensor | None, ...]:
        rates, norm, *grads = ctx.saved_tensors
        clipped = norm >= ctx.clip if ctx.clip else torch.zeros_like(norm, dtype=torch.bool)
        safe = torch.where(clipped, norm, torch.ones_like(norm))
        factor = torch.where(clipped, ctx.clip / safe, torch.ones_like(norm))
        dots = torch.stack([(grad.float() * one).sum() for grad, one in zip(grads, v, strict=True)])
        d_factor = -(rates * dots).sum()
        d_norm = torch.where(clipped, -d_factor * factor / safe, torch.zeros_like(norm))
        return (
            None,
            None,
            (-factor * dots).to(rates.dtype),
            d_norm,
            *(one * (1 - ctx.decay) for one in v),
            *((-(rate * factor) * one).to(grad.dtype) for rate, grad, one in zip(rates, grads, v, strict=True)),
            *((ctx.decay * one).to(dtype) for dtype, one in zip(ctx.anchors, v, strict=False)),
        )


def norm_of(grads: Sequence[Tensor]) -> Tensor:
    """Norm over all of `grads`, an fp32 scalar on their device."""
    counts = [triton.cdiv(grad.numel(), BLOCK) for grad in grads]
    slots = torch.empty(sum(counts), dtype=torch.float32, device=grads[0].device)
    norm = torch.empty((), dtype=torch.float32, device=grads[0].device)
    first = 0
    for grad, count in zip(grads, counts, strict=True):
        if count:
            _squares_kernel[(count,)](grad.contiguous(), slots, first, grad.numel(), BLOCK=BLOCK, num_warps=8)
        first += count
    _norm_kernel[(1,)](slots, norm, len(slots), BLOCK=1024)
    return norm


def write_one(
    weight: Tensor,
    grad: Tensor,
    out: Tensor,
    anchor: Tensor | None,
    rate: Tensor,
    norm: Tensor,
    clip: float,
    decay: float,
    *,
    guarded: bool,
) -> None:
    """Writes one weight's successor to `out`, which may be `weight`; `guarded`: only where `norm` is finite."""
    size = weight.numel()
    if not size:
        return
    _write_kernel[(triton.cdiv(size, BLOCK),)](
        weight,
        grad.contiguous(),
        out,
        weight if anchor is None else anchor.contiguous(),
        rate,
        norm,
        clip,
        decay,
        size,
        ANCHORED=anchor is not None,
        GUARDED=guarded,
        BLOCK=BLOCK,
        num_warps=8,
    )


@triton.jit  # type: ignore[untyped-decorator]
def _squares_kernel(grad_ptr, slots_ptr, first, size, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    block = tl.program_id(0).to(tl.int64)
    at = block * BLOCK + tl.arange(0, BLOCK)
    grad = tl.load(grad_ptr + at, mask=at < size, other=0.0).to(tl.float32)
    tl.store(slots_ptr + first + block, tl.sum(grad * grad, 0))


@triton.jit  # type: ignore[untyped-decorator]
def _norm_kernel(slots_ptr, norm_ptr, count, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    total = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, count, BLOCK):
        at = start + tl.arange(0, BLOCK)
        total += tl.load(slots_ptr + at, mask=at < count, other=0.0)
    tl.store(norm_ptr, tl.sqrt(tl.sum(total, 0)))


@triton.jit  # type: ignore[untyped-decorator]
def _write_kernel(  # type: ignore[no-untyped-def]
    weight_ptr,
    grad_ptr,
    out_ptr,
    anchor_ptr,
    rate_ptr,
    norm_ptr,
    clip,
    decay,
    size,
    ANCHORED: tl.constexpr,
    GUARDED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < size
    norm = tl.load(norm_ptr)
    step = tl.load(rate_ptr).to(tl.float32) * tl.where((clip > 0) & (norm >= clip), clip / norm, 1.0)
    weight = tl.load(weight_ptr + at, mask=inside, other=0.0)
    grad = tl.load(grad_ptr + at, mask=inside, other=0.0).to(tl.float32)
    new = weight - step * grad
    if ANCHORED:
        new -= decay * (weight - tl.load(anchor_ptr + at, mask=inside, other=0.0).to(tl.float32))
    if GUARDED:
        # False for NaN as well.
        inside = at < tl.where(norm < float("inf"), size, 0)
    tl.store(out_ptr + at, new, mask=inside)
