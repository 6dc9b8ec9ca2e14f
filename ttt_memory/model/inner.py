"""The inner step on a whole state, as configured: used by the fold (in place) and by meta-learning (differentiable)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from ttt_kernels.inner_update import InnerStep, inner_update

from ttt_memory.model.config import InnerConfig


def write(
    weights: Sequence[Tensor],
    grads: Sequence[Tensor],
    layer_rates: Tensor,
    config: InnerConfig,
    *,
    share: float = 1.0,
    anchors: Sequence[Tensor] | None = None,
    impl: str = "auto",
) -> InnerStep:
    """One inner step.

    Args:
        weights: masters, the same number of tensors for every dynamic layer, layer by layer.
        grads: their gradients of the mini-batch's mean loss.
        layer_rates: [S], one learning rate per dynamic layer.
        config: rule, clip and decay.
        share: n / b, the filled part of the mini-batch; scales rates and decay, after the clip.
        anchors: W0 in the order of `weights`; needed with decay.
        impl: as in `ttt_kernels.inner_update`.
    """
    per_layer = len(weights) // layer_rates.shape[0]
    return inner_update(
        weights,
        grads,
        layer_rates.repeat_interleave(per_layer) * share,
        rule=config.rule,
        clip=config.clip,
        decay=config.decay * share,
        anchors=anchors,
        impl=impl,
    )
