"""Arguments of the attention operation."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class KeyValues(NamedTuple):
    """Keys before RoPE and values, [B, Hkv, N, D] each."""

    k: Tensor
    v: Tensor


class Rope(NamedTuple):
    """Rotation tables by position.

    Attributes:
        cos, sin: [N, D/2], row p for position p.
        interleaved: pairs are columns (2j, 2j+1); otherwise (j, j + D/2).
    """

    cos: Tensor
    sin: Tensor
    interleaved: bool
