"""The specification, in plain PyTorch; differentiable through the clip and its norm."""

from __future__ import annotations

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
    grads = [grad.to(weight.dtype) for grad, weight in zip(grads, weights, strict=True)]
    squares = torch.stack([grad.square().sum() for grad in grads]).sum()
    # The root has no finite slope at 0: there the unclipped branch is taken and the root is of a constant.
    moving = squares > 0
    norm = torch.where(moving, torch.sqrt(torch.where(moving, squares, torch.ones_like(squares))), squares)
    steps = [-rate for rate in rates.to(norm.dtype).unbind()]
    if rule == "muon":
        # The clip scales, and orthogonalising takes any scale away again.
        grads = [orthogonalise(grad) for grad in grads]
    elif clip:
        clipped = norm >= clip
        factor = torch.where(clipped, clip / torch.where(clipped, norm, torch.ones_like(norm)), torch.ones_like(norm))
        steps = [step * factor for step in steps]
    # One pass over each weight.
    after = [torch.addcmul(weight, grad, step) for weight, grad, step in zip(weights, grads, steps, strict=True)]
    if decay and anchors is not None:
        after = [new - decay * (weight - anchor) for new, weight, anchor in zip(after, weights, anchors, strict=True)]
    return InnerStep(tuple(after), norm)
