"""`ask`: from a question to an answer, in three modes. Nothing here writes."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ttt_memory.answerers import generate
from ttt_memory.answerers.extract import extract
from ttt_memory.errors import InvalidInputError, RelearningError
from ttt_memory.notepad.terms import count_terms
from ttt_memory.types import Answer, Answerer, Citation, Contributions, Mode, Passage

if TYPE_CHECKING:
    from ttt_memory.handle import Handle
    from ttt_memory.model.generate import Sampling

_RELEARNING = "The fast weights are being rebuilt after forget; this answer comes from the notepad alone."
_CANDIDATES = 8
"""Passages that an answerer looks at, at least."""


class AnswerStream(Iterator[str]):
    """Pieces of an answer as they come; `answer` is complete once they are read."""

    def __init__(self, pieces: Generator[str, None, Answer]) -> None:
        self._pieces = pieces
        self._answer: Answer | None = None

    def __next__(self) -> str:
        try:
            return next(self._pieces)
        except StopIteration as stop:
            self._answer = stop.value or self._answer
            raise StopIteration from None

    @property
    def answer(self) -> Answer:
        """The whole answer with its citations; reads what is left of the stream first."""
        for _ in self:
            pass
        if self._answer is None:
            raise InvalidInputError("The stream was closed before the answer was complete.")
        return self._answer

    def close(self) -> None:
        """Stop generating."""
        self._pieces.close()


@dataclass(frozen=True)
class Question:
    """One call of `ask`, checked."""

    text: str
    mode: Mode
    answerer: Answerer
    limit: int
    where: dict[str, Any] | None
    as_of: datetime | None
    sampling: Sampling | None
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InvalidInputError("The question is empty.")
        if self.mode not in ("hybrid", "weights", "notepad"):
            raise InvalidInputError(f"Unknown mode {self.mode!r}.", fix='Use "hybrid", "weights" or "notepad".')
        if self.answerer not in ("extract", "generate"):
            raise InvalidInputError(f"Unknown answerer {self.answerer!r}.", fix='Use "extract" or "generate".')
        if self.limit < 1:
            raise InvalidInputError(f"limit={self.limit} is less than 1.")


def ask(handle: Handle, question: Question) -> Generator[str, None, Answer]:
    """Yield the pieces of the answer, return all of it.

    Raises:
        RelearningError: `mode="weights"` while the weights are rebuilt after `forget`.
    """
    head = handle.sync()
    clean = handle.clean(head)
    published = handle.published
    if question.mode == "weights":
        if not clean:
            raise RelearningError(
                "The fast weights cannot answer now.",
                why="a document was forgotten and they are being rebuilt without it",
                fix='Ask with mode="notepad", or again when stats().relearning is False.',
            )
        return (yield from _generated(handle, question, [], published.weights, published.through.position))
    hits = _search(handle, question)
    notes = (_RELEARNING,) if question.mode == "hybrid" and not clean else ()
    if question.answerer == "generate":
        weights = published.weights if question.mode == "hybrid" and clean else None
        return (yield from _generated(handle, question, hits, weights, published.through.position, notes))
    return (yield from _extracted(handle, question, hits, published.through.position, notes))


def _search(handle: Handle, question: Question) -> list[Passage]:
    started = time.perf_counter()
    limit = max(question.limit, _CANDIDATES)
    hits = handle.notepad.search(question.text, limit=limit, where=question.where, as_of=question.as_of)
    question.timings["search"] = time.perf_counter() - started
    return hits


def _extracted(
    handle: Handle, question: Question, hits: list[Passage], through: int, notes: tuple[str, ...]
) -> Generator[str, None, Answer]:
    started = time.perf_counter()
    found = extract(question.text, hits, handle.embedder)
    question.timings["answer"] = time.perf_counter() - started
    yield found.text
    return Answer(
        text=found.text,
        citations=found.citations[: question.limit],
        mode=question.mode,
        grounded=found.grounded,
        confidence=found.confidence,
        contributions=Contributions(notepad=1.0 if found.citations else 0.0, weights=0.0),
        learned_through=through,
        timings=question.timings,
        notes=notes,
    )


def _generated(
    handle: Handle,
    question: Question,
    hits: list[Passage],
    weights: Any,
    through: int,
    notes: tuple[str, ...] = (),
) -> Generator[str, None, Answer]:
    lane, model, text = handle.learner.lane, handle.model, question.text
    started = time.perf_counter()
    sampling = question.sampling or generate.DEFAULT_SAMPLING
    pieces: list[str] = []
    for piece in lane.stream(generate.answer(model, weights, text, hits, sampling)):
        question.timings.setdefault("first_token", time.perf_counter() - started)
        pieces.append(piece)
        yield piece
    written = "".join(pieces)
    question.timings["answer"] = time.perf_counter() - started

    def likelihood(state: Any, passages: list[Passage]) -> float:
        return lane.run(generate.likelihood(model, state, text, passages, written)) if written.strip() else -math.inf

    both = likelihood(weights, hits)
    if hits and weights is not None:
        notepad, learned = generate.shares(both, likelihood(None, hits), likelihood(weights, []))
    else:
        notepad, learned = float(bool(hits)), float(weights is not None and through > 0)
    question.timings["attribution"] = time.perf_counter() - started - question.timings["answer"]
    citations = tuple(
        Citation(document_id=p.document_id, start=p.start, end=p.end, text=p.text, score=p.score) for p in hits
    )
    return Answer(
        text=written.strip(),
        citations=citations[: question.limit],
        mode=question.mode,
        grounded=bool(hits) and _quoted(written, hits),
        confidence=math.exp(both),
        contributions=Contributions(notepad=notepad, weights=learned),
        learned_through=through,
        timings=question.timings,
        notes=notes,
    )


def _quoted(written: str, hits: list[Passage]) -> bool:
    """Whether every word of a written answer stands in the passages it was given: a strict, cheap check."""
    read = {term for hit in hits for term in count_terms(hit.text)}
    said = count_terms(written).keys()
    return bool(said) and said <= read
