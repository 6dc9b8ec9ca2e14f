"""Written answers: by the local model or another answerer, each statement held against the passages it was given."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from ttt_memory.answerers import generate
from ttt_memory.answerers.calibration import WRITTEN
from ttt_memory.answerers.extract import extract
from ttt_memory.answerers.support import check, refuses
from ttt_memory.lane import check_interrupt
from ttt_memory.types import Answer, Citation, Claim, Contributions, Passage, Prompt

if TYPE_CHECKING:
    from ttt_memory.asking import Question
    from ttt_memory.handle import Handle
    from ttt_memory.states import Published

_REFUSED = "The answerer found no answer in the passages."


def closed_book(handle: Handle, question: Question, published: Published) -> Generator[str, None, Answer]:
    """From the fast weights alone: nothing to cite, nothing to hold the answer against."""
    written = yield from _local(handle, question, [], published.weights)
    through = published.through.position
    return Answer(
        text=written.text.strip(),
        citations=(),
        mode=question.mode,
        grounded=False,
        confidence=math.exp(written.likelihood),
        contributions=Contributions(notepad=0.0, weights=float(through > 0)),
        learned_through=through,
        timings=question.timings,
        prompt=_explained(question, written.prompt, {"likelihood": math.exp(written.likelihood)}),
    )


def from_local_model(
    handle: Handle, question: Question, hits: list[Passage], weights: Any, through: int, notes: tuple[str, ...]
) -> Generator[str, None, Answer]:
    """The local model reads passages, with the fast weights where `weights` is given."""
    written = yield from _local(handle, question, hits, weights)
    started = time.perf_counter()
    if hits and weights is not None:
        notepad, learned = generate.shares(
            written.likelihood,
            _likelihood(handle, question, None, hits, written.text),
            _likelihood(handle, question, weights, [], written.text),
        )
    else:
        notepad, learned = float(bool(hits)), float(weights is not None and through > 0)
    question.timings["attribution"] = time.perf_counter() - started
    signals = {"likelihood": math.exp(written.likelihood)}
    shares = Contributions(notepad=notepad, weights=learned)
    return _judged(handle, question, hits, written.text, written.prompt, shares, through, notes, signals)


def from_answerer(
    handle: Handle, question: Question, hits: list[Passage], through: int, notes: tuple[str, ...]
) -> Generator[str, None, Answer]:
    """Another answerer reads passages; there is at least one."""
    answerer = question.answerer
    assert not isinstance(answerer, str)
    started = time.perf_counter()
    prompt = answerer.prompt(question.text, hits)
    pieces: list[str] = []
    with _closed(answerer.answer(prompt)) as stream:
        for piece in stream:
            question.timings.setdefault("first_token", time.perf_counter() - started)
            pieces.append(piece)
            yield piece
            check_interrupt()
    question.timings["answer"] = time.perf_counter() - started
    shares = Contributions(notepad=1.0, weights=0.0)
    return _judged(handle, question, hits, "".join(pieces), prompt, shares, through, notes, {})


class _Written(NamedTuple):
    """What the local model wrote, from what, and the mean log-probability of it (-inf for nothing)."""

    text: str
    prompt: Prompt
    likelihood: float


def _local(handle: Handle, question: Question, hits: list[Passage], weights: Any) -> Generator[str, None, _Written]:
    lane, model = handle.learner.lane, handle.model
    started = time.perf_counter()
    sampling = question.sampling or generate.DEFAULT_SAMPLING
    pieces: list[str] = []
    for piece in lane.stream(generate.answer(model, weights, question.text, hits, sampling)):
        question.timings.setdefault("first_token", time.perf_counter() - started)
        pieces.append(piece)
        yield piece
    text = "".join(pieces)
    question.timings["answer"] = time.perf_counter() - started
    likelihood = _likelihood(handle, question, weights, hits, text)
    return _Written(text, generate.prompt(model, question.text, hits), likelihood)


def _likelihood(handle: Handle, question: Question, weights: Any, hits: list[Passage], text: str) -> float:
    if not text.strip():
        return -math.inf
    return handle.learner.lane.run(generate.likelihood(handle.model, weights, question.text, hits, text))


def _judged(
    handle: Handle,
    question: Question,
    hits: Sequence[Passage],
    written: str,
    prompt: Prompt,
    shares: Contributions,
    through: int,
    notes: tuple[str, ...],
    signals: dict[str, float],
) -> Answer:
    """The answer with its claims held against the passages that the writer saw."""
    started = time.perf_counter()
    text = written.strip()
    refused = refuses(text)
    # Only what the memory itself found may be cited, whatever an answerer calls its passages.
    read = [number for number, hit in enumerate(hits) if hit in prompt.passages]
    claims = [] if refused else check(question.text, text, [hits[n] for n in read], handle.embedder)
    citations, claims = _cited(claims, read, hits, question.limit)
    signals["support"] = min((0.0 if claim.missing else claim.score for claim in claims), default=0.0)
    signals["quote"] = extract(question.text, hits, handle.embedder).confidence
    unsupported = tuple(_unsupported(claim) for claim in claims if not claim.supported)
    question.timings["check"] = time.perf_counter() - started
    return Answer(
        text=text,
        citations=citations,
        mode=question.mode,
        grounded=bool(claims) and not unsupported,
        confidence=WRITTEN(signals) if claims else 0.0,
        contributions=shares,
        learned_through=through,
        timings=question.timings,
        notes=(*notes, *((_REFUSED,) if refused else ()), *unsupported),
        claims=tuple(claims),
        prompt=_explained(question, prompt, signals),
    )


def _cited(
    claims: Sequence[Claim], read: Sequence[int], hits: Sequence[Passage], limit: int
) -> tuple[tuple[Citation, ...], list[Claim]]:
    """At most `limit` hits as citations, best first, and the claims pointing at them. Hits that bear a claim out have
    the first right to a place; claims come pointing into `read`, which are places among the hits."""
    used = list(dict.fromkeys(read[claim.citation] for claim in claims if claim.citation is not None))
    chosen = sorted([*used, *(n for n in range(len(hits)) if n not in used)][:limit])
    places = {hit: place for place, hit in enumerate(chosen)}
    citations = tuple(
        Citation(document_id=p.document_id, start=p.start, end=p.end, text=p.text, score=p.score)
        for p in (hits[n] for n in chosen)
    )
    return citations, [
        claim.model_copy(update={"citation": None if claim.citation is None else places.get(read[claim.citation])})
        for claim in claims
    ]


def _unsupported(claim: Claim) -> str:
    said = claim.text if len(claim.text) <= 120 else claim.text[:119] + "…"
    absent = f" ({', '.join(claim.missing)} in none of them)" if claim.missing else ""
    return f"Not borne out by the passages{absent}: {said}"


def _explained(question: Question, prompt: Prompt, signals: dict[str, float]) -> Prompt | None:
    return prompt.model_copy(update={"signals": signals}) if question.explain else None


def _closed(stream: Iterator[str]) -> contextlib.AbstractContextManager[Iterator[str]]:
    """The stream, closed at the end where it can be: leaving an answer early stops its writer."""
    return contextlib.closing(stream) if hasattr(stream, "close") else contextlib.nullcontext(stream)  # type: ignore[type-var]
