"""RoPE rotation, the same maths in every implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kernels._checks import compute_dtype


def rotate(x: Tensor, cos: Tensor, sin: Tensor, *, interleaved: bool) -> Tensor:
    """Turns pairs of columns of `x` [..., T, D] by the angles behind `cos`, `sin` [..., T, D/2]; result in x's dtype."""
    precise = compute_dtype(x.dtype)
    xf, cos, sin = x.to(precise), cos.to(precise), sin.to(precise)
    if interleaved:
        a, b = xf[..., 0::2], xf[..., 1::2]
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
    a, b = xf.chunk(2, dim=-1)
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1).to(x.dtype)
