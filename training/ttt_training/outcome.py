"""What goes into and comes out of an outer gradient, beside the network and the text."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ttt_memory.model.fold import Segment


@dataclass(frozen=True)
class Recall:
    """Re-reads a span after the last write, in a window of its own, and adds its loss.

    Attributes:
        weight: of the span's mean loss beside the sequence's.
        segment: context and predicted tokens of the span.
    """

    weight: float
    segment: Segment


@dataclass(frozen=True)
class OuterGradient:
    """What one sequence gave. Losses in nats per token.

    Attributes:
        loss: mean over mini-batches, each before its own write and a tail counted by its share: the mean over
            predicted tokens. NaN where the fold would have skipped a write; then `grads` is empty.
        mini_batch_losses: in order.
        tokens: predicted tokens.
        grads: of `loss` plus the recall term, by parameter name; fp32 (float64 for a float64 network). Parameters that
            the loss does not depend on have none.
        inner_norms: global norm of the inner gradient before the clip, of every write that a later loss depends on.
        recall_loss: mean loss of the recalled span; None without a recall term.
    """

    loss: float
    mini_batch_losses: tuple[float, ...]
    tokens: int
    grads: dict[str, Tensor] = field(repr=False)
    inner_norms: tuple[float, ...]
    recall_loss: float | None = None
