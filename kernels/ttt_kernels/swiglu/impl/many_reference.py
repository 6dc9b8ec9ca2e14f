"""The specification of many tenants: one after another. On a CPU it is the fast path too, each weight is read once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def swiglu_many(x: Tensor, rows: Sequence[int], gate_up: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    """See `ttt_kernels.swiglu.swiglu_many`."""
    parts = []
    for part, upper, lower in zip(x.split_with_sizes(list(rows)), gate_up, down, strict=True):
        gate, up = F.linear(part, upper).chunk(2, dim=-1)
        parts.append(F.linear(F.silu(gate) * up, lower))
    if len(parts) == 1:
        return parts[0]
    return torch.cat(parts) if parts else x.clone()
