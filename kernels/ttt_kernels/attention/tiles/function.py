"""Pair of autograd Functions: the backward pass of the first is the forward pass of the second.

They hold the rules of differentiation; a `Passes` does the arithmetic (Triton kernels, or the closed form).
"""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from ttt_kernels._wanted import wanted
from ttt_kernels.attention.tiles.geometry import Geometry
from ttt_kernels.first_order import first_order_only
from ttt_kernels.precision import compute_dtype

Grads = tuple[Tensor | None, ...]


class Passes(Protocol):
    """The three passes. q [B, Hq, T, D], k, v [B, Hkv, T, D], prefix pk, pv [B, Hkv, P, D] or None, before RoPE."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, pk: Tensor | None, pv: Tensor | None, at: Geometry
    ) -> tuple[Tensor, Tensor]:
        """out [B, Hq, T, D] and log-sum-exp [B, Hq, T]; zeros and a large negative number where no key is seen."""

    def backward(
        self,
        inputs: tuple[Tensor | None, ...],
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor,
        at: Geometry,
        keys: bool,
        prefix: bool,
    ) -> Grads:
        """dq, dk, dv, dpk, dpv; None for dk, dv unless `keys`, for dpk, dpv unless `prefix`."""

    def double(
        self,
        inputs: tuple[Tensor | None, ...],
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor,
        cotangents: tuple[Tensor | None, ...],
        at: Geometry,
        prefix: bool,
    ) -> Grads:
        """Gradients of <cotangents, backward's results> in q, k, v, pk, pv, dout, dlse."""


class Attend(torch.autograd.Function):
    """(q, k, v, pk, pv) -> (out, lse)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pk: Tensor | None,
        pv: Tensor | None,
        at: Geometry,
        passes: Passes,
    ) -> tuple[Tensor, Tensor]:
        """See `Passes.forward`."""
        out, lse = passes.forward(q, k, v, pk, pv, at)
        ctx.save_for_backward(q, k, v, pk, pv, out, lse)
        ctx.at, ctx.passes = at, passes
        ctx.set_materialize_grads(False)
        return out, lse

    @staticmethod
    def backward(ctx: Any, dout: Tensor | None, dlse: Tensor | None) -> Grads:
        """The forward pass of `AttendBackward`."""
        if dout is None and dlse is None:
            return (None,) * 7
        *_, pk, _, out, lse = ctx.saved_tensors
        dout = torch.zeros_like(out) if dout is None else dout
        dlse = torch.zeros_like(lse) if dlse is None else dlse
        asked = wanted(ctx, 3 if pk is None else 5)
        keys = any(asked[1:3])
        prefix = any(asked[3:]) and (ctx.at.prefix_grad or not torch.is_grad_enabled())
        grads = AttendBackward.apply(  # type: ignore[no-untyped-call]
            *ctx.saved_tensors, dout, dlse, ctx.at, ctx.passes, keys, prefix
        )
        return (*grads, None, None)


class AttendBackward(torch.autograd.Function):
    """(q, k, v, pk, pv, out, lse, dout, dlse) -> (dq, dk, dv, dpk, dpv)."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pk: Tensor | None,
        pv: Tensor | None,
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor,
        at: Geometry,
        passes: Passes,
        keys: bool,
        prefix: bool,
    ) -> Grads:
        """See `Passes.backward`."""
        ctx.save_for_backward(q, k, v, pk, pv, out, lse, dout, dlse)
        ctx.at, ctx.passes = at, passes
        ctx.set_materialize_grads(False)
        return passes.backward((q, k, v, pk, pv), out, lse, dout, dlse, at, keys, prefix)

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *cotangents: Tensor | None) -> Grads:
        """See `Passes.double`."""
        q, k, v, pk, pv, out, lse, dout, dlse = ctx.saved_tensors
        if all(cotangent is None for cotangent in cotangents):
            return (None,) * 13
        prefix = pk is not None and (ctx.needs_input_grad[3] or ctx.needs_input_grad[4])
        gq, gk, gv, gpk, gpv, gdout, gdlse = ctx.passes.double(
            (q, k, v, pk, pv), out, lse, dout, dlse, cotangents, ctx.at, prefix
        )
        # out and lse are functions of q, k and v: what flows through them is in gq, gk, gv already.
        return gq, gk, gv, gpk, gpv, None, None, gdout, gdlse, None, None, None, None


def attend(
    q: Tensor, k: Tensor, v: Tensor, pk: Tensor | None, pv: Tensor | None, at: Geometry, passes: Passes
) -> tuple[Tensor, Tensor]:
    """Attention over the window alone: out in q's dtype and its log-sum-exp, both twice differentiable."""
    out, lse = Attend.apply(q, k, v, pk, pv, at, passes)  # type: ignore[no-untyped-call]
    return out, lse


def stats(q: Tensor) -> Tensor:
    """Uninitialised [B, Hq, T] for one number per query in the precision of the softmax."""
    return torch.empty(q.shape[:3], dtype=compute_dtype(q.dtype), device=q.device)


def five(inputs: tuple[Tensor | None, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """q, k, v, pk, pv, of which only the prefix may be missing."""
    q, k, v, pk, pv = inputs
    if q is None or k is None or v is None:
        raise RuntimeError("q, k and v are always there")
    return q, k, v, pk, pv
