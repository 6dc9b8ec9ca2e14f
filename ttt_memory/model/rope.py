"""RoPE tables: angles in float64, rows made on demand."""

from __future__ import annotations

import torch
from ttt_kernels.attention import Rope


class RopeTables:
    """Cosines and sines by position for one head width.

    Rotation is relative: positions counted from the start of a pass give the same scores as positions inside the
    window, and angles taken in float64 before rounding keep them so at any length.
    """

    def __init__(self, head_dim: int, theta: float, *, interleaved: bool) -> None:
        self._frequencies = theta ** -(torch.arange(0, head_dim, 2, dtype=torch.float64, device="cpu") / head_dim)
        self._interleaved = interleaved
        self._rows: dict[tuple[torch.device, torch.dtype], Rope] = {}

    def __call__(self, length: int, device: torch.device, dtype: torch.dtype) -> Rope:
        """Tables for at least positions 0..length-1, float64 if `dtype` is, else float32."""
        precise = torch.float64 if dtype == torch.float64 else torch.float32
        found = self._rows.get((device, precise))
        if found is None or found.cos.shape[0] < length:
            size = max(1024, 1 << (length - 1).bit_length())
            angles = torch.arange(size, dtype=torch.float64)[:, None] * self._frequencies
            found = Rope(
                angles.cos().to(device, precise), angles.sin().to(device, precise), interleaved=self._interleaved
            )
            self._rows[(device, precise)] = found
        return found
