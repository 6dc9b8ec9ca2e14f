"""Public face of linear cross-entropy: checks arguments, then calls one implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kernels import _checks
from ttt_kernels.cross_entropy.impl import chunked, reference

__all__ = ["linear_cross_entropy"]


def _triton(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    from ttt_kernels.cross_entropy.impl import triton

    return triton.linear_cross_entropy(hidden, weight, targets)


_IMPLS = {"reference": reference.linear_cross_entropy, "chunked": chunked.linear_cross_entropy, "triton": _triton}


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor, *, impl: str = "auto") -> Tensor:
    """Negative log-likelihood of each target under softmax(hidden weightᵀ).

    Args:
        hidden: [N, D].
        weight: [V, D], the head (tied embedding or its own).
        targets: [N] int64, each in 0..V-1.
        impl: "reference" (any order of derivative), "chunked" (constant memory; gradient of `hidden` only, both
            orders), "triton" (both orders; a target outside the vocabulary gives NaN), or "auto" (Triton on a CUDA
            device, else the reference).

    Returns:
        [N] nats, fp32 (float64 for float64 inputs).

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit; the message names it.
    """
    chosen = _IMPLS[_checks.choose(impl, tuple(_IMPLS), _checks.auto(hidden))]
    _checks.shape("hidden", hidden, ("N", "D"))
    _checks.floating("hidden", hidden)
    _checks.shape("weight", weight, ("V", hidden.shape[1]))
    _checks.same_kind("weight", weight, "hidden", hidden)
    _checks.shape("targets", targets, (hidden.shape[0],))
    if targets.dtype != torch.int64:
        raise ValueError(f"targets has dtype {targets.dtype}, expected torch.int64")
    if targets.device != hidden.device:
        raise ValueError(f"targets is on {targets.device}, expected {hidden.device} like hidden")
    if chosen is not _triton and len(targets) and targets.device.type == "cpu":
        lowest, highest = int(targets.min()), int(targets.max())
        if lowest < 0 or highest >= len(weight):
            raise ValueError(f"targets holds {lowest}..{highest}, expected ids in 0..{len(weight) - 1}")
    return chosen(hidden, weight, targets)
