"""Triton path: products on cuBLAS, a block of rows at a time; softmax, its gradient and its second derivative fused.

The logits of at most `ELEMENTS` entries exist at a time and are overwritten by what the next product needs. The
gradient of `hidden` for a cotangent of 1 is made with the loss, where it is wanted. The head's gradient is computed
where the running backward pass asks for it, so never in an inner step. Maths: README of the operation.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttt_kernels._launch import power_of_two, runnable
from ttt_kernels._wanted import wanted
from ttt_kernels.first_order import first_order_only

ELEMENTS = 1 << 27
"""Logits at a time: 256 MB in 16 bits, and enough rows to fill a GPU at every vocabulary in use."""

_BLOCK = 4096


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """See `ttt_kernels.cross_entropy.linear_cross_entropy`. A target outside 0..V-1 gives NaN: nothing waits for it."""
    runnable("hidden", hidden)
    needed = hidden.requires_grad and torch.is_grad_enabled()
    loss: Tensor = _Loss.apply(hidden.contiguous(), weight, targets.contiguous(), needed)  # type: ignore[no-untyped-call]
    return loss


def _row_blocks(rows: int, vocabulary: int) -> Iterator[slice]:
    step = max(1, ELEMENTS // max(1, vocabulary))
    for first in range(0, rows, step):
        yield slice(first, min(first + step, rows))


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, needed: bool) -> Tensor:
        nll = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        lse = torch.empty_like(nll)
        unit = torch.empty_like(hidden) if needed else None
        for rows in _row_blocks(len(hidden), len(weight)):
            z = torch.mm(hidden[rows], weight.T)
            loss_rows(z, targets[rows], nll[rows], lse[rows])
            if unit is not None:
                gradient_rows(z, targets[rows], lse[rows], None)
                unit[rows] = torch.mm(z, weight)
        ctx.save_for_backward(hidden, weight, targets, lse, unit)
        return nll

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, lse, unit = ctx.saved_tensors
        for_hidden, for_weight = wanted(ctx, 2)
        d_hidden, d_weight = _Gradient.apply(  # type: ignore[no-untyped-call]
            grad.contiguous(), hidden, weight, targets, lse, unit if for_hidden else None, for_weight
        )
        return d_hidden, d_weight, None, None


class _Gradient(torch.autograd.Function):
    """First-order gradients of hidden and weight; its backward pass is the second derivative of the loss."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        lse: Tensor,
        unit: Tensor | None,
        for_weight: bool,
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(grad, hidden, weight, targets, lse)
        d_hidden = None if unit is None else (unit * grad[:, None]).to(hidden.dtype)
        if not for_weight:
            return d_hidden, None
        total = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device)
        for rows in _row_blocks(len(hidden), len(weight)):
            z = torch.mm(hidden[rows], weight.T)
            gradient_rows(z, targets[rows], lse[rows], grad[rows])
            _add_product(total, z.T, hidden[rows])
        return d_hidden, total.to(weight.dtype)

    @staticmethod
    @first_order_only
    def backward(ctx: Any, u: Tensor | None, u_weight: Tensor | None) -> tuple[Tensor | None, ...]:
        grad, hidden, weight, targets, lse = ctx.saved_tensors
        for_grad, for_hidden, for_weight = wanted(ctx, 3)
        if u is None and u_weight is None:
            return (None,) * 7
        d_grad = torch.empty_like(grad)
        d_hidden = torch.empty_like(hidden) if for_hidden else None
        total = torch.zeros(weight.shape, dtype=torch.float32, device=weight.device) if for_weight else None
        for rows in _row_blocks(len(hidden), len(weight)):
            z = torch.mm(hidden[rows], weight.T)
            t = _tangent(u, u_weight, hidden, weight, rows)
            second_rows(z, t, targets[rows], lse[rows], grad[rows], d_grad[rows])
            if d_hidden is not None:
                part = torch.mm(t, weight)
                d_hidden[rows] = part if u_weight is None else torch.addmm(part, z, u_weight)
            if total is not None:
                _add_product(total, t.T, hidden[rows])
                if u is not None:
                    _add_product(total, z.T, u[rows])
        d_weight = None if total is None else total.to(weight.dtype)
        return d_grad if for_grad else None, d_hidden, d_weight, None, None, None, None


def _tangent(u: Tensor | None, u_weight: Tensor | None, hidden: Tensor, weight: Tensor, rows: slice) -> Tensor:
    """Cotangent [n, V] of the logits' gradient, from those of the gradients of hidden and weight."""
    if u is None:
        assert u_weight is not None
        return torch.mm(hidden[rows], u_weight.T)
    t = torch.mm(u[rows], weight.T)
    return t if u_weight is None else torch.addmm(t, hidden[rows], u_weight.T)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """Adds a b to fp32 `total`."""
    if a.dtype == total.dtype:
        total.addmm_(a, b)
    else:
        total.add_(torch.mm(a, b))


def loss_rows(z: Tensor, targets: Tensor, nll: Tensor, lse: Tensor) -> None:
    """Fills nll and log-sum-exp [n], fp32, of logits z [n, V]."""
    vocabulary = z.shape[1]
    _loss_kernel[(len(z),)](z, targets, nll, lse, vocabulary, z.stride(0), BLOCK=_block(vocabulary), num_warps=8)


def gradient_rows(z: Tensor, targets: Tensor, lse: Tensor, grad: Tensor | None) -> None:
    """Overwrites logits z [n, V] with the gradient of the loss by them; `grad` [n] is the loss's cotangent, or 1."""
    vocabulary = z.shape[1]
    block = _block(vocabulary)
    _gradient_kernel[(len(z), triton.cdiv(vocabulary, block))](
        z, targets, lse, lse if grad is None else grad, vocabulary, z.stride(0), SCALED=grad is not None, BLOCK=block
    )


def second_rows(z: Tensor, t: Tensor, targets: Tensor, lse: Tensor, grad: Tensor, d_grad: Tensor) -> None:
    """Adjoint of `gradient_rows` for a cotangent t [n, V] of its result.

    Overwrites logits z with that result and t with the cotangent of the logits; fills that of `grad` [n].
    """
    vocabulary = z.shape[1]
    _second_kernel[(len(z),)](
        z, t, targets, lse, grad, d_grad, vocabulary, z.stride(0), t.stride(0), BLOCK=_block(vocabulary), num_warps=8
    )


def _block(vocabulary: int) -> int:
    return power_of_two(vocabulary, 16, _BLOCK)


@triton.jit  # type: ignore[untyped-decorator]
def _loss_kernel(z_ptr, target_ptr, nll_ptr, lse_ptr, vocabulary, stride, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    z_row = z_ptr + row * stride
    largest = tl.full((), float("-inf"), tl.float32)
    total = tl.full((), 0.0, tl.float32)
    for first in range(0, vocabulary, BLOCK):
        at = first + tl.arange(0, BLOCK)
        z = tl.load(z_row + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        new = tl.maximum(largest, tl.max(z, 0))
        total = total * tl.exp(largest - new) + tl.sum(tl.exp(z - new), 0)
        largest = new
    lse = largest + tl.log(total)
    target = tl.load(target_ptr + row)
    inside = (target >= 0) & (target < vocabulary)
    chosen = tl.load(z_row + target, mask=inside, other=float("nan")).to(tl.float32)
    tl.store(lse_ptr + row, lse)
    tl.store(nll_ptr + row, lse - chosen)


@triton.jit  # type: ignore[untyped-decorator]
def _gradient_kernel(  # type: ignore[no-untyped-def]
    z_ptr, target_ptr, lse_ptr, grad_ptr, vocabulary, stride, SCALED: tl.constexpr, BLOCK: tl.constexpr
):
    """Overwrites logits with the gradient of the loss by them."""
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    z_at = z_ptr + row * stride + at
    z = tl.load(z_at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
    dz = tl.exp(z - tl.load(lse_ptr + row)) - (at == tl.load(target_ptr + row)).to(tl.float32)
    if SCALED:
        dz = dz * tl.load(grad_ptr + row)
    tl.store(z_at, dz.to(z_ptr.dtype.element_ty), mask=at < vocabulary)


@triton.jit  # type: ignore[untyped-decorator]
def _second_kernel(  # type: ignore[no-untyped-def]
    z_ptr, t_ptr, target_ptr, lse_ptr, grad_ptr, d_grad_ptr, vocabulary, z_stride, t_stride, BLOCK: tl.constexpr
):
    """Overwrites logits z with g (p - onehot), and t with g p (t - sum(p t)); gives the cotangent of g."""
    row = tl.program_id(0).to(tl.int64)
    z_row = z_ptr + row * z_stride
    t_row = t_ptr + row * t_stride
    lse = tl.load(lse_ptr + row)
    grad = tl.load(grad_ptr + row)
    target = tl.load(target_ptr + row)
    mean = tl.full((), 0.0, tl.float32)
    for first in range(0, vocabulary, BLOCK):
        at = first + tl.arange(0, BLOCK)
        z = tl.load(z_row + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        t = tl.load(t_row + at, mask=at < vocabulary, other=0.0).to(tl.float32)
        mean += tl.sum(tl.exp(z - lse) * t, 0)
    inside = (target >= 0) & (target < vocabulary)
    tl.store(d_grad_ptr + row, mean - tl.load(t_row + target, mask=inside, other=float("nan")).to(tl.float32))
    # Every lane must have read the target's entry before any overwrites it.
    tl.debug_barrier()
    for first in range(0, vocabulary, BLOCK):
        at = first + tl.arange(0, BLOCK)
        z = tl.load(z_row + at, mask=at < vocabulary, other=float("-inf")).to(tl.float32)
        t = tl.load(t_row + at, mask=at < vocabulary, other=0.0).to(tl.float32)
        p = tl.exp(z - lse)
        onehot = (at == target).to(tl.float32)
        tl.store(z_row + at, (grad * (p - onehot)).to(z_ptr.dtype.element_ty), mask=at < vocabulary)
        tl.store(t_row + at, (grad * p * (t - mean)).to(t_ptr.dtype.element_ty), mask=at < vocabulary)
