"""RoPE rotation, the same maths in every implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kernels.precision import compute_dtype


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """Turns pairs of columns of `x` [..., T, D] by the angles behind `cos`, `sin` [..., T, D/2]; result in x's dtype.

    Written as x * cos + swapped(x) * (-sin, sin), which takes the fewest passes over memory.
    """
    precise = compute_dtype(x.dtype)
    xf, cos, sin = x.to(precise), cos.to(precise), sin.to(precise)
    if interleaved:
        pairs = xf.reshape(*xf.shape[:-1], -1, 2)
        turned = torch.addcmul(pairs * cos[..., None], pairs.flip(-1), torch.stack((-sin, sin), dim=-1))
        return turned.flatten(-2).to(x.dtype)
    if not torch.is_grad_enabled():
        return _turned_in_place(xf, cos, sin).to(x.dtype)
    swapped = xf.roll(x.shape[-1] // 2, dims=-1)
    return torch.addcmul(xf * torch.cat((cos, cos), dim=-1), swapped, torch.cat((-sin, sin), dim=-1)).to(x.dtype)


def _turned_in_place(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """The same sums, hence the same bits, without a graph: no swapped copy and no doubled tables."""
    out, half = torch.empty_like(x, memory_format=torch.contiguous_format), x.shape[-1] // 2
    left, right = x[..., :half], x[..., half:]
    torch.mul(left, cos, out=out[..., :half]).addcmul_(right, sin, value=-1)
    torch.mul(right, cos, out=out[..., half:]).addcmul_(left, sin)
    return out
