"""`ask`: from a question to an answer, in three modes. Nothing here writes."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ttt_memory.answerers.extract import extract
from ttt_memory.answerers.protocol import Answerer
from ttt_memory.answering import closed_book, from_answerer, from_local_model
from ttt_memory.errors import InvalidInputError, RelearningError
from ttt_memory.types import Answer, AnswererName, Contributions, Mode, Passage, Prompt

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
    answerer: AnswererName | Answerer
    limit: int
    where: dict[str, Any] | None
    as_of: datetime | None
    sampling: Sampling | None
    explain: bool = False
    timings: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise InvalidInputError("The question is empty.")
        if self.mode not in ("hybrid", "weights", "notepad"):
            raise InvalidInputError(f"Unknown mode {self.mode!r}.", fix='Use "hybrid", "weights" or "notepad".')
        if isinstance(self.answerer, str):
            if self.answerer not in ("extract", "generate"):
                raise InvalidInputError(
                    f"Unknown answerer {self.answerer!r}.", fix='Use "extract", "generate" or an Answerer object.'
                )
        elif not isinstance(self.answerer, Answerer):
            raise InvalidInputError(
                f"{type(self.answerer).__name__} is not an answerer.",
                why="it lacks one of name, passages, prompt and answer",
                fix="See ttt_memory.Answerer.",
            )
        elif self.mode == "weights":
            raise InvalidInputError(
                f"{self.answerer.name} cannot answer from the fast weights.",
                why="only the local model can read them",
                fix='Leave answerer= away, or use mode="hybrid".',
            )
        if self.limit < 1:
            raise InvalidInputError(f"limit={self.limit} is less than 1.")


def ask(handle: Handle, question: Question) -> Generator[str, None, Answer]:
    """Yield the pieces of the answer, return all of it.

    Raises:
        RelearningError: `mode="weights"` while the weights are rebuilt after `forget`.
        EndpointError: from an answerer behind a network.
    """
    head = handle.sync()
    clean = handle.clean(head)
    if question.mode == "weights":
        if not clean:
            raise RelearningError(
                "The fast weights cannot answer now.",
                why="a document was forgotten and they are being rebuilt without it",
                fix='Ask with mode="notepad", or again when stats().relearning is False.',
            )
        return (yield from closed_book(handle, question, handle.published))
    hits = _search(handle, question)
    through = handle.standing(head).through.position
    notes = (_RELEARNING,) if question.mode == "hybrid" and not clean else ()
    if question.answerer == "generate":
        weights = handle.published.weights if question.mode == "hybrid" and clean else None
        return (yield from from_local_model(handle, question, hits, weights, through, notes))
    if question.answerer == "extract" or not hits:
        return (yield from _extracted(handle, question, hits, through, notes))
    return (yield from from_answerer(handle, question, hits, through, notes))


def _search(handle: Handle, question: Question) -> list[Passage]:
    started = time.perf_counter()
    limit = max(question.limit, _CANDIDATES if isinstance(question.answerer, str) else question.answerer.passages)
    hits = handle.search(question.text, limit=limit, where=question.where, as_of=question.as_of)
    question.timings["search"] = time.perf_counter() - started
    return hits


def _extracted(
    handle: Handle, question: Question, hits: list[Passage], through: int, notes: tuple[str, ...]
) -> Generator[str, None, Answer]:
    started = time.perf_counter()
    found = extract(question.text, hits, handle.embedder)
    question.timings["answer"] = time.perf_counter() - started
    yield found.text
    prompt = Prompt(answerer="extract", passages=tuple(hits), considered=found.considered, signals=found.signals)
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
        prompt=prompt if question.explain else None,
    )
