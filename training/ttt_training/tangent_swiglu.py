"""SwiGLU with a tangent; one elementwise pass of derivatives each way. Maths: README of `ttt_kernels.swiglu`."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from ttt_kernels.first_order import first_order_only

_silu_backward = torch.ops.aten.silu_backward.default
_sigmoid_backward = torch.ops.aten.sigmoid_backward.default


def swiglu(
    x: Tensor, dx: Tensor | None, gate_up: Tensor, down: Tensor, d_gate_up: Tensor | None, d_down: Tensor | None
) -> tuple[Tensor, Tensor]:
    """(y, dy) of x [1, n, D] for weights gate_up [2F, D], down [D, F] and their tangents.

    No tangent of x: dx is None; none of the weights: d_gate_up and d_down are.
    """
    if dx is None:
        assert d_gate_up is not None
        z, dz = F.linear(x, gate_up), F.linear(x, d_gate_up)
    else:
        z, dz = F.linear(torch.cat((x, dx)), gate_up).chunk(2)
        if d_gate_up is not None:
            dz = dz + F.linear(x, d_gate_up)
    m, dm = _Gate.apply(z, dz)  # type: ignore[no-untyped-call]
    y, dy = F.linear(torch.cat((m, dm)), down).chunk(2)
    return y, dy if d_down is None else dy + F.linear(m, d_down)


class _Gate(torch.autograd.Function):
    """m = silu(a) b and its tangent for pre-activations z = (a, b), [..., 2F]."""

    @staticmethod
    def forward(ctx: Any, z: Tensor, dz: Tensor) -> tuple[Tensor, Tensor]:
        (a, b), (da, db) = z.chunk(2, dim=-1), dz.chunk(2, dim=-1)
        silu, along = F.silu(a), _silu_backward(da, a)
        ctx.save_for_backward(z, dz, silu, along)
        return silu * b, torch.addcmul(along * b, silu, db)

    @staticmethod
    @first_order_only
    def backward(ctx: Any, u: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        z, dz, silu, along = ctx.saved_tensors
        (a, b), (da, db) = z.chunk(2, dim=-1), dz.chunk(2, dim=-1)
        d_z, d_dz = torch.empty_like(z), torch.empty_like(dz)
        (d_a, d_b), (d_da, d_db) = d_z.chunk(2, dim=-1), d_dz.chunk(2, dim=-1)
        wb = w * b
        torch.mul(w, silu, out=d_db)
        d_da.copy_(_silu_backward(wb, a))
        torch.addcmul(u * silu, w, along, out=d_b)
        # silu''(a) = s (1 - s) (2 + a (1 - 2 s))
        s = torch.sigmoid(a)
        bend = torch.addcmul(a.new_tensor(2.0), a, torch.rsub(s, 1, alpha=2)).mul_(wb.mul_(da))
        slope = _silu_backward(torch.addcmul(u * b, w, db), a)
        torch.add(slope, _sigmoid_backward(bend, s), out=d_a)
        return d_z, d_dz
