"""What every pass over a windowed attention needs to know besides its tensors."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

NO_WINDOW = 1 << 30
"""Stands for "all keys before"; positions stay below it."""


@dataclass(frozen=True)
class Geometry:
    """Where queries and keys stand.

    Attributes:
        starts: [B] int64, position of each sequence's first query.
        window: keys that a query sees, itself included.
        oldest: first position that is a key of the window; those before it are sinks.
        scale: of the scores.
        cos, sin: [positions, D/2], contiguous, or None for no rotation.
        paired: pairs are columns (2j, 2j+1), otherwise (j, j + D/2).
        prefix_grad: False leaves out the prefix's gradient where the derivative is itself being recorded.
    """

    starts: Tensor
    window: int
    oldest: int
    scale: float
    cos: Tensor | None
    sin: Tensor | None
    paired: bool
    prefix_grad: bool

    def unturned(self) -> Geometry:
        """The same for keys that are rotated already."""
        return replace(self, cos=None, sin=None)
