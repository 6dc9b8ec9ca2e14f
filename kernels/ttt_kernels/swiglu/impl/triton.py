"""Triton path for one sequence: gate and up in one kernel with their product, pre-activations saved, both orders.

All other products stay on cuBLAS; the elementwise parts of both backward passes are one kernel each. A gradient of the
weights is computed where the running backward pass asks for it, so never for static MLPs in an inner step.

Legend: M rows, D hidden, F MLP width. Maths: README of the operation.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttt_kernels._launch import power_of_two, runnable
from ttt_kernels._wanted import wanted
from ttt_kernels.first_order import first_order_only

_BLOCK = 1024


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """See `ttt_kernels.swiglu.swiglu`."""
    runnable("x", x)
    rows = x.reshape(-1, x.shape[-1]).contiguous()
    keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, gate_up, down))
    y: Tensor = _SwiGLU.apply(rows, gate_up.contiguous(), down, keep)  # type: ignore[no-untyped-call]
    return y.reshape(x.shape)


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor, keep: bool) -> Tensor:
        product, pre = gated(x, gate_up, keep=keep)
        ctx.save_for_backward(x, gate_up, down, pre)
        return torch.mm(product, down.T)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, gate_up, down, pre = ctx.saved_tensors
        grads = _Gradient.apply(dy.contiguous(), x, gate_up, down, pre, wanted(ctx, 3))  # type: ignore[no-untyped-call]
        return (*grads, None)


class _Gradient(torch.autograd.Function):
    """First-order gradients of x, gate_up and down; its backward pass is the second derivative."""

    @staticmethod
    def forward(
        ctx: Any, dy: Tensor, x: Tensor, gate_up: Tensor, down: Tensor, pre: Tensor, asked: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(dy, x, gate_up, down, pre)
        for_x, for_gate_up, for_down = asked
        d_pre, product = first_derivative(pre, torch.mm(dy, down))
        return (
            torch.mm(d_pre, gate_up) if for_x else None,
            torch.mm(d_pre.T, x) if for_gate_up else None,
            torch.mm(dy.T, product) if for_down else None,
        )

    @staticmethod
    @first_order_only
    def backward(
        ctx: Any, u_x: Tensor | None, u_gate_up: Tensor | None, u_down: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        dy, x, gate_up, down, pre = ctx.saved_tensors
        for_dy, for_x, for_gate_up, for_down = wanted(ctx, 4)
        # Cotangents of the pre-activations' gradient [M, 2F] and of the product [M, F].
        t = _sum(_mm(u_x, gate_up.T), _mm(x, None if u_gate_up is None else u_gate_up.T))
        c = _mm(dy, u_down)
        t = torch.zeros_like(pre) if t is None else t
        c = torch.zeros_like(pre[:, : pre.shape[1] // 2]) if c is None else c
        d_pre, product, cot_d_product = second_derivative(pre, torch.mm(dy, down), t, c)  # t becomes that of `pre`
        return (
            _sum(torch.mm(cot_d_product, down.T), _mm(product, None if u_down is None else u_down.T))
            if for_dy
            else None,
            _sum(torch.mm(t, gate_up), _mm(d_pre, u_gate_up)) if for_x else None,
            _sum(torch.mm(t.T, x), _mm(d_pre.T, u_x)) if for_gate_up else None,
            torch.mm(dy.T, cot_d_product) if for_down else None,
            None,
            None,
        )


def _mm(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.mm(a, b)


def _sum(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a.add_(b)


def gated(x: Tensor, gate_up: Tensor, *, keep: bool) -> tuple[Tensor, Tensor | None]:
    """silu(x gateᵀ) * (x upᵀ) [M, F], and where `keep` the pre-activations [M, 2F], from x [M, D], gate_up [2F, D]."""
    count, width, inner = len(x), x.shape[1], len(gate_up) // 2
    product = torch.empty(count, inner, dtype=x.dtype, device=x.device)
    pre = torch.empty(count, 2 * inner, dtype=x.dtype, device=x.device) if keep else None
    exact = x.dtype == torch.float32
    block_m = power_of_two(count, 16, 64 if exact else 128)
    block_n, block_k = (32, 32) if exact else (64, 64)
    _gated_kernel[(triton.cdiv(count, block_m), triton.cdiv(inner, block_n))](
        x,
        gate_up,
        product,
        product if pre is None else pre,
        count,
        width,
        inner,
        KEEP=keep,
        BLOCK_M=block_m,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        num_warps=8 if block_m >= 128 else 4,
        num_stages=2 if exact else 3,
    )
    return product, pre


def first_derivative(pre: Tensor, d_product: Tensor) -> tuple[Tensor, Tensor]:
    """Gradient [M, 2F] of the pre-activations from that of the product [M, F]; the product again, beside it."""
    count, inner = d_product.shape
    d_pre, product = torch.empty_like(pre), torch.empty_like(d_product)
    block = power_of_two(inner, 16, _BLOCK)
    _first_kernel[(count, triton.cdiv(inner, block))](pre, d_product, d_pre, product, inner, BLOCK=block)
    return d_pre, product


def second_derivative(pre: Tensor, d_product: Tensor, t: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Adjoint of `first_derivative` for cotangents t [M, 2F] of its d_pre and c [M, F] of its product.

    Returns d_pre and product again, and the cotangent of d_product; `t` is overwritten with the cotangent of `pre`.
    """
    count, inner = d_product.shape
    d_pre, product, cot = torch.empty_like(pre), torch.empty_like(d_product), torch.empty_like(d_product)
    block = power_of_two(inner, 16, _BLOCK)
    _second_kernel[(count, triton.cdiv(inner, block))](
        pre, d_product, t, c.contiguous(), d_pre, product, cot, inner, BLOCK=block
    )
    return d_pre, product, cot


@triton.jit  # type: ignore[untyped-decorator]
def _gated_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    gate_up_ptr,
    product_ptr,
    pre_ptr,
    count,
    width,
    inner,
    KEEP: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_M + tl.arange(0, BLOCK_M)
    columns = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_in, column_in = (rows < count)[:, None], (columns < inner)[:, None]
    x_rows = x_ptr + rows[:, None] * width
    gate_rows = gate_up_ptr + columns[:, None] * width
    up_rows = gate_up_ptr + (columns + inner)[:, None] * width
    gate = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    up = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for first in range(0, width, BLOCK_K):
        k = (first + tl.arange(0, BLOCK_K))[None, :]
        x = tl.load(x_rows + k, mask=row_in & (k < width), other=0.0)
        g = tl.load(gate_rows + k, mask=column_in & (k < width), other=0.0)
        u = tl.load(up_rows + k, mask=column_in & (k < width), other=0.0)
        gate = tl.dot(x, tl.trans(g), gate, input_precision="ieee")
        up = tl.dot(x, tl.trans(u), up, input_precision="ieee")
    inside = row_in & (columns < inner)[None, :]
    # The backward pass starts from the saved, rounded pre-activations: the product is made of the same.
    gate = gate.to(pre_ptr.dtype.element_ty)
    up = up.to(pre_ptr.dtype.element_ty)
    if KEEP:
        pre_at = pre_ptr + rows[:, None] * (2 * inner) + columns[None, :]
        tl.store(pre_at, gate, mask=inside)
        tl.store(pre_at + inner, up, mask=inside)
    a = gate.to(tl.float32)
    product = a * tl.sigmoid(a) * up.to(tl.float32)
    product_at = product_ptr + rows[:, None] * inner + columns[None, :]
    tl.store(product_at, product.to(product_ptr.dtype.element_ty), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _first_kernel(pre_ptr, d_product_ptr, d_pre_ptr, product_ptr, inner, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < inner
    narrow, wide = row * inner + at, row * 2 * inner + at
    a = tl.load(pre_ptr + wide, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(pre_ptr + wide + inner, mask=inside, other=0.0).to(tl.float32)
    dm = tl.load(d_product_ptr + narrow, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(a)
    silu = a * s
    slope = s * (1 + a * (1 - s))
    kind = d_pre_ptr.dtype.element_ty
    tl.store(d_pre_ptr + wide, (dm * b * slope).to(kind), mask=inside)
    tl.store(d_pre_ptr + wide + inner, (dm * silu).to(kind), mask=inside)
    tl.store(product_ptr + narrow, (silu * b).to(kind), mask=inside)


@triton.jit  # type: ignore[untyped-decorator]
def _second_kernel(  # type: ignore[no-untyped-def]
    pre_ptr, d_product_ptr, t_ptr, c_ptr, d_pre_ptr, product_ptr, cot_ptr, inner, BLOCK: tl.constexpr
):
    row = tl.program_id(0).to(tl.int64)
    at = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = at < inner
    narrow, wide = row * inner + at, row * 2 * inner + at
    a = tl.load(pre_ptr + wide, mask=inside, other=0.0).to(tl.float32)
    b = tl.load(pre_ptr + wide + inner, mask=inside, other=0.0).to(tl.float32)
    dm = tl.load(d_product_ptr + narrow, mask=inside, other=0.0).to(tl.float32)
    ta = tl.load(t_ptr + wide, mask=inside, other=0.0).to(tl.float32)
    tb = tl.load(t_ptr + wide + inner, mask=inside, other=0.0).to(tl.float32)
    c = tl.load(c_ptr + narrow, mask=inside, other=0.0).to(tl.float32)
    s = tl.sigmoid(a)
    silu = a * s
    slope = s * (1 + a * (1 - s))
    bend = s * (1 - s) * (2 + a * (1 - 2 * s))
    kind = d_pre_ptr.dtype.element_ty
    tl.store(d_pre_ptr + wide, (dm * b * slope).to(kind), mask=inside)
    tl.store(d_pre_ptr + wide + inner, (dm * silu).to(kind), mask=inside)
    tl.store(product_ptr + narrow, (silu * b).to(kind), mask=inside)
    tl.store(cot_ptr + narrow, (ta * b * slope + tb * silu).to(kind), mask=inside)
    tl.store(t_ptr + wide, (ta * dm * b * bend + tb * dm * slope + c * b * slope).to(kind), mask=inside)
    tl.store(t_ptr + wide + inner, (ta * dm * slope + c * silu).to(kind), mask=inside)
