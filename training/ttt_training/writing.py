"""The inner step inside the outer loop: the fold's own write, and its adjoint."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ttt_memory.model.config import InnerConfig
from ttt_memory.model.inner import write


class WriteCotangents(NamedTuple):
    """What a write passes back: to the weights before it, the inner gradient, the rates [S] and W0."""

    weights: list[Tensor]
    grads: list[Tensor]
    rates: Tensor
    anchors: list[Tensor] | None


def written(
    masters: Sequence[Tensor],
    grads: Sequence[Tensor],
    rates: Tensor,
    config: InnerConfig,
    *,
    share: float,
    anchors: Sequence[Tensor],
) -> tuple[list[Tensor], float]:
    """Masters after one inner step, as new tensors, and the gradient's norm before the clip."""
    after = [master.clone() for master in masters]
    kept = list(anchors) if config.decay else None
    impl = "in_place" if after[0].device.type == "cpu" else "triton_in_place"
    step = write(after, grads, rates, config, share=share, anchors=kept, impl=impl)
    return after, float(step.norm)


def pull_write(
    masters: Sequence[Tensor],
    grads: Sequence[Tensor],
    rates: Tensor,
    config: InnerConfig,
    cotangents: Sequence[Tensor],
    *,
    share: float,
    norm: float,
    anchors: Sequence[Tensor],
) -> WriteCotangents:
    """Adjoint of `written` for cotangents of the masters after it; `norm` is what `written` gave.

    SGD in closed form (maths: README of `ttt_kernels.inner_update`), through the clip and its norm; other rules by
    differentiating the reference.
    """
    if config.rule != "sgd":
        return _pull_by_autograd(masters, grads, rates, config, cotangents, share=share, anchors=anchors)
    per_layer = len(masters) // len(rates)
    clipped = bool(config.clip) and norm >= config.clip
    factor = config.clip / norm if clipped else 1.0
    dots = torch.stack([(grad * cot).sum() for grad, cot in zip(grads, cotangents, strict=True)])
    by_layer = dots.view(len(rates), per_layer).sum(1)
    # Through the norm in the clip: the same multiple of the gradient itself for every tensor.
    inward = float((by_layer * rates).sum()) * share * config.clip / norm**3 if clipped else 0.0
    back = []
    for index, (grad, cot) in enumerate(zip(grads, cotangents, strict=True)):
        scaled = cot * (-float(rates[index // per_layer]) * share * factor)
        back.append(scaled.add_(grad, alpha=inward) if clipped else scaled)
    decay = config.decay * share
    return WriteCotangents(
        weights=[cot * (1 - decay) for cot in cotangents] if decay else list(cotangents),
        grads=back,
        rates=by_layer * (-share * factor),
        anchors=[cot * decay for cot in cotangents] if decay else None,
    )


def _pull_by_autograd(
    masters: Sequence[Tensor],
    grads: Sequence[Tensor],
    rates: Tensor,
    config: InnerConfig,
    cotangents: Sequence[Tensor],
    *,
    share: float,
    anchors: Sequence[Tensor],
) -> WriteCotangents:
    count = len(masters)
    leaves = [tensor.detach().requires_grad_() for tensor in (*masters, *grads, rates, *anchors)]
    before, gradient, rate, start = leaves[:count], leaves[count : 2 * count], leaves[2 * count], leaves[-count:]
    with torch.enable_grad():
        after = write(before, gradient, rate, config, share=share, anchors=start, impl="reference").weights
        pulled = torch.autograd.grad(after, leaves, list(cotangents), materialize_grads=True)
    anchored = list(pulled[-count:]) if config.decay else None
    return WriteCotangents(list(pulled[:count]), list(pulled[count : 2 * count]), pulled[2 * count], anchored)


def finite(loss: float, norm: float) -> bool:
    """Whether the fold would write this step."""
    return math.isfinite(loss) and math.isfinite(norm)
