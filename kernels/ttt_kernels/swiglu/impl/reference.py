"""The specification, in plain PyTorch; differentiable any number of times."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """See `ttt_kernels.swiglu.swiglu`."""
    gate, up = F.linear(x, gate_up).chunk(2, dim=-1)
    return F.linear(F.silu(gate) * up, down)
