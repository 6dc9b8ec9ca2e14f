"""Which precision an operation computes in."""

from __future__ import annotations

import torch


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """Precision of norms, softmax and losses: float64 stays, everything else is float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32
