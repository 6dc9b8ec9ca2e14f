"""Public face of the inner update: checks arguments, then calls one implementation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from ttt_kernels import _checks
from ttt_kernels.inner_update.impl import in_place, reference
from ttt_kernels.inner_update.types import InnerStep

__all__ = ["InnerStep", "inner_update"]


def _triton(*args: Any, **options: Any) -> InnerStep:
    from ttt_kernels.inner_update.impl import triton

    return triton.inner_update(*args, **options)


def _triton_in_place(*args: Any, **options: Any) -> InnerStep:
    from ttt_kernels.inner_update.impl import triton

    return triton.inner_update_in_place(*args, **options)


_IMPLS: dict[str, Callable[..., InnerStep]] = {
    "reference": reference.inner_update,
    "in_place": in_place.inner_update,
    "triton": _triton,
    "triton_in_place": _triton_in_place,
}
_RULES = ("sgd", "muon")


def inner_update(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    rates: Tensor,
    *,
    rule: str = "sgd",
    clip: float = 1.0,
    decay: float = 0.0,
    anchors: Sequence[Tensor] | None = None,
    impl: str = "auto",
) -> InnerStep:
    """One write: W' = W - rate * u(G) - decay * (W - W0), with one clip over all tensors together.

    Args:
        weights: masters, fp32 or float64, of one sequence.
        grads: one gradient per weight, same shape; any floating dtype.
        rates: [len(weights)] learning rates, differentiable.
        rule: "sgd": u(G) = G after the clip. "muon": u(G) is G orthogonalised by Newton-Schulz (2-D weights).
        clip: the global norm n over all grads is brought to `clip` where n >= clip; 0 is none.
        decay: share of the distance to `anchors` given back.
        anchors: W0, needed where decay is not 0.
        impl: "reference" (differentiable), "in_place" (writes into `weights`, no graph; nothing is written where
            the norm is not finite), "triton" and "triton_in_place" (the same two with fp32 masters, nothing read back
            to the host), or "auto" ("triton" on a CUDA device, else the reference).

    Returns:
        InnerStep(weights, norm): norm before the clip, a scalar tensor on the weights' device. A gradient of exactly
        zero takes the unclipped branch and has finite derivatives.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit; the message names it.
    """
    auto = _checks.auto(weights[0]) if weights else "reference"
    chosen = _IMPLS[_checks.choose(impl, tuple(_IMPLS), auto)]
    if rule not in _RULES:
        raise ValueError(f"unknown rule {rule!r}; valid: {', '.join(map(repr, _RULES))}")
    if len(weights) != len(grads) or not weights:
        raise ValueError(f"grads has {len(grads)} tensors, expected {len(weights)} (at least 1), one per weight")
    for index, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
        _checks.floating(f"weights[{index}]", weight)
        _checks.floating(f"grads[{index}]", grad)
        _same_device(f"grads[{index}]", grad, weights[0])
        _checks.shape(f"grads[{index}]", grad, tuple(weight.shape))
        if rule == "muon":
            _checks.shape(f"weights[{index}]", weight, ("M", "N"))
    _checks.shape("rates", rates, (len(weights),))
    _checks.floating("rates", rates)
    if clip < 0:
        raise ValueError(f"clip is {clip}, expected 0 (none) or a positive norm")
    if decay:
        if anchors is None or len(anchors) != len(weights):
            raise ValueError(f"anchors is needed with decay={decay}: expected {len(weights)} tensors")
        for index, (weight, anchor) in enumerate(zip(weights, anchors, strict=True)):
            _checks.shape(f"anchors[{index}]", anchor, tuple(weight.shape))
            _same_device(f"anchors[{index}]", anchor, weights[0])
    return chosen(weights, grads, rates, rule=rule, clip=clip, decay=decay, anchors=anchors)


def _same_device(name: str, tensor: Tensor, weight: Tensor) -> None:
    if tensor.device != weight.device:
        raise ValueError(f"{name} is on {tensor.device}, expected {weight.device} like weights[0]")
