"""Low-rank adapters (Hu et al. 2021) of static matrices, merged into the network they adapt."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

DOWN, UP = "lora_down", "lora_up"


class LowRank:
    """W = W_base + (alpha / rank) up down for named matrices.

    Merged: the network computes with W in its own precision and yields dW, from which the adapters' gradients follow.
    So the forward pass costs what it did, and a merged update smaller than half a unit in the last place of W waits
    until it has grown.

    Args:
        bases: [out, in] by parameter name; not written.
        rank, alpha: of the adapters.
        generator: draws `down`; `up` starts at zero, so that W is W_base.
    """

    def __init__(self, bases: Mapping[str, Tensor], *, rank: int, alpha: float, generator: torch.Generator) -> None:
        self._bases, self._scale = dict(bases), alpha / rank
        self.masters: dict[str, Tensor] = {}
        for name, base in self._bases.items():
            wide = torch.promote_types(base.dtype, torch.float32)
            down = torch.empty(rank, base.shape[1], dtype=wide).normal_(
                0.0, 1 / math.sqrt(base.shape[1]), generator=generator
            )
            self.masters[f"{name}/{DOWN}"] = down.to(base.device)
            self.masters[f"{name}/{UP}"] = torch.zeros(base.shape[0], rank, dtype=wide, device=base.device)

    def merged(self, name: str) -> Tensor:
        """W of a matrix, in the masters' precision."""
        down, up = self.masters[f"{name}/{DOWN}"], self.masters[f"{name}/{UP}"]
        return torch.addmm(self._bases[name].to(up.dtype), up, down, alpha=self._scale)

    def pull(self, name: str, grad: Tensor) -> dict[str, Tensor]:
        """Gradients of a matrix's adapters from that of W [out, in]."""
        down, up = self.masters[f"{name}/{DOWN}"], self.masters[f"{name}/{UP}"]
        grad = grad.to(up.dtype)
        return {f"{name}/{DOWN}": up.T @ grad * self._scale, f"{name}/{UP}": grad @ down.T * self._scale}
