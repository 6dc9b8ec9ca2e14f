"""Loss of every token as the product reads: cut into segments, each mini-batch scored before it is written."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from ttt_memory.errors import TTTMemoryError
from ttt_memory.model.fold import Segment, read, score, segments
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.state import FastWeights
from ttt_training.evaluate.subjects import Subject

R = TypeVar("R")
NOTHING = np.zeros(0, np.int32)


def losses(subject: Subject, tokens: np.ndarray) -> np.ndarray:
    """Nats [T] of the tokens [T] of one document, from the start token on.

    A subject that writes gives the mean of each mini-batch, before its own update, to all of its tokens: means over
    whole mini-batches are exact.

    Raises:
        TTTMemoryError: a loss is not finite.
    """
    if subject.writes and subject.state is not None:
        found, _ = learn(subject.model, subject.state, tokens)
    else:
        parts = [drain(score(subject.model, subject.state, piece)) for piece in _cut(subject, tokens)]
        found = np.concatenate(parts) if parts else np.zeros(0, np.float32)
    return _finite(found)


def learn(model: LoadedModel, state: FastWeights, tokens: np.ndarray) -> tuple[np.ndarray, FastWeights]:
    """Reads one document with writes: losses [T], each mini-batch's mean for all of its tokens; the state after it."""
    parts: list[np.ndarray] = []

    def keep(step: Any) -> None:
        if step is not None:
            parts.append(np.full(step.tokens, step.loss, np.float32))

    for piece in segments(tokens, NOTHING, model.config, append=False):
        state = drain(read(model, state, piece), keep)
    return np.concatenate(parts) if parts else np.zeros(0, np.float32), state


def fresh(model: LoadedModel, state: FastWeights | None, tokens: np.ndarray) -> float:
    """Mean nats per token of a stretch of text in a fresh window (nothing before it but the start token), no writes.

    Raises TTTMemoryError where a loss is not finite.
    """
    return float(np.mean(_finite(drain(score(model, state, Segment(NOTHING, tokens)))), dtype=np.float64))


def drain(steps: Generator[Any, None, R], each: Callable[[Any], None] = lambda _step: None) -> R:
    """A generator's return value; `each` is called with what it yields."""
    while True:
        try:
            each(next(steps))
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]


def _finite(nats: np.ndarray) -> np.ndarray:
    if not np.isfinite(nats).all():
        raise TTTMemoryError(
            "A loss is not finite.",
            why=f"at token {int(np.argmin(np.isfinite(nats)))}",
            fix="Check the weights; a lower inner rate may help.",
        )
    return nats


def _cut(subject: Subject, tokens: np.ndarray) -> Iterator[Segment]:
    config = subject.model.config
    if subject.whole:
        config = replace(config, segment_tokens=max(1, len(tokens)))
    return segments(tokens, NOTHING, config, append=False)
