"""A training sequence as the steps in which the fold reads it (`ttt_memory.model.fold`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.fold import Segment


@dataclass(frozen=True)
class Step:
    """One block of tokens, read under one set of fast weights.

    Attributes:
        inputs: [n] int64.
        targets: [n] int64, one token ahead; None for context, which is read without loss.
        weight: share of this block's mean loss in the outer loss.
        share: n / b, the filled part of the mini-batch, which scales its write; None where nothing is written.
        opens: a new pass starts here: nothing is cached.
    """

    inputs: Tensor
    targets: Tensor | None
    weight: float
    share: float | None
    opens: bool


def steps_of(
    segments: Sequence[Segment],
    config: ModelConfig,
    *,
    writes: bool,
    total: float = 1.0,
    device: torch.device | str = "cpu",
) -> list[Step]:
    """The steps of `segments`, whose loss weights add up to `total`: every predicted token counts the same.

    Context comes first in blocks of a mini-batch, its last token predicts the segment's first; without context a start
    token does. Mini-batches count from the segment's start. Raises InvalidInputError for ids that the model has
    not, and where nothing is predicted.
    """
    predicted = sum(len(segment.tokens) for segment in segments)
    if not predicted:
        raise InvalidInputError("A training sequence has no token to predict.", fix="Leave out empty texts.")
    size = config.inner.mini_batch
    steps: list[Step] = []
    for segment in segments:
        context, tokens = (_row(ids, config.vocab_size) for ids in (segment.context, segment.tokens))
        before = context if len(context) else torch.tensor([config.start_token])
        stream = torch.cat((before[-1:], tokens)).to(device)
        blocks = torch.split(before[:-1].to(device), size) if len(before) > 1 else ()
        first = len(steps)
        steps += [Step(block, None, 0.0, None, opens=False) for block in blocks]
        for begin in range(0, len(tokens), size):
            span = stream[begin : begin + size + 1]
            count = len(span) - 1
            share = count / size if writes else None
            steps.append(Step(span[:-1], span[1:], total * count / predicted, share, opens=False))
        if len(steps) > first:
            opening = steps[first]
            steps[first] = Step(opening.inputs, opening.targets, opening.weight, opening.share, opens=True)
    return steps


def _row(ids: np.ndarray, vocabulary: int) -> Tensor:
    row = torch.from_numpy(np.asarray(ids, np.int64))
    if row.ndim != 1 or (len(row) and not 0 <= int(row.min()) <= int(row.max()) < vocabulary):
        raise InvalidInputError(
            "A training sequence holds token ids that the model does not have.",
            why=f"ids must be in 0..{vocabulary - 1}",
            fix="Tokenise the data with the model's own tokenizer.",
            vocab_size=vocabulary,
        )
    return row
