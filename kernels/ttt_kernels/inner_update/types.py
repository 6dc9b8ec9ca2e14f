"""Result of one inner step."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class InnerStep(NamedTuple):
    """Weights after the step, and the gradient's global norm before the clip (a scalar tensor)."""

    weights: tuple[Tensor, ...]
    norm: Tensor
