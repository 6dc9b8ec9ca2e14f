"""The write while reading: no graph, no second copy of the weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ttt_kernels.inner_update.newton_schulz import orthogonalise
from ttt_kernels.inner_update.types import InnerStep


def inner_update(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    rates: Tensor,
    *,
    rule: str,
    clip: float,
    decay: float,
    anchors: Sequence[Tensor] | None,
) -> InnerStep:
    """See `ttt_kernels.inner_update.inner_update`."""
    with torch.no_grad():
        norms = [
            torch.linalg.vector_norm(grad, dtype=torch.promote_types(grad.dtype, weight.dtype))
            for grad, weight in zip(grads, weights, strict=True)
        ]
        norm = torch.linalg.vector_norm(torch.stack(norms))
        size = float(norm)
        if not math.isfinite(size):
            return InnerStep(tuple(weights), norm)
        factor = clip / size if clip and size >= clip else 1.0
        for index, (weight, grad, rate) in enumerate(zip(weights, grads, rates.tolist(), strict=True)):
            if decay and anchors is not None:
                weight.lerp_(anchors[index], decay)
            if rule == "muon":
                weight.add_(orthogonalise(grad.to(weight.dtype)), alpha=-rate)
            else:
                weight.add_(grad, alpha=-rate * factor)
        return InnerStep(tuple(weights), norm)
