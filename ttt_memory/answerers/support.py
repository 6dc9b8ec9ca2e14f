"""Is each statement of a written answer borne out by the passages it was written from?

By words, names, numbers and likeness, without a model that reads: a statement that uses the passages' words to say the
opposite passes. What does not pass is worth a second look.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ttt_memory.answerers.calibration import CLAIM, SUPPORTED_AT
from ttt_memory.notepad.sentences import sentences
from ttt_memory.notepad.terms import STOP_WORDS, expand, query_terms, terms, tokens
from ttt_memory.types import Claim, Passage

if TYPE_CHECKING:
    from ttt_memory.notepad.embedders import Embedder

MOST_CLAIMS = 16
"""Further statements are judged by their words alone: embedding them would take seconds."""
UNKNOWN_SIMILARITY = 0.5
"""Theirs is taken to be middling."""
WINDOWS = 2
"""Places of the passages, best by words, that a claim is compared with by likeness."""
FEW_TERMS = 4
"""A statement of fewer terms ("In 1843.") says something only together with the question."""
NAME_WEIGHT = 2.0
"""Of a name or number among the words of a claim."""

_MARKS = re.compile(r"\s*\[\d+(?:\s*,\s*\d+)*\]")
_REFUSAL = re.compile(
    r"(?:the |these |those )?(?:notes?|passages?|context|text)\b.{0,40}\b(?:do(?:es)?|did|is|are)(?: not|n['’]t)\b"
    r"|(?:i|we) (?:do(?: not|n['’]t)|can(?:not|['’]t)|could(?: not|n['’]t)) (?:know|find|answer|say|tell)"
    r"|there is no (?:information|mention|answer)|not (?:enough|sufficient) information|nothing was found",
    re.IGNORECASE,
)
_NUMBERS = {
    word: str(number)
    for number, word in enumerate("zero one two three four five six seven eight nine ten eleven twelve".split())
}


@dataclass(frozen=True)
class _Place:
    """One or two neighbouring sentences of a passage."""

    passage: int
    text: str
    terms: frozenset[str]


@dataclass(frozen=True)
class _Statement:
    start: int
    end: int
    weights: dict[str, float]
    missing: tuple[str, ...]
    asked: str


class Near(NamedTuple):
    """A place that may bear a statement out: share of its terms, cosine, number of the passage."""

    overlap: float
    similarity: float
    passage: int


class Measured(NamedTuple):
    """A statement, `text[start:end]`, its names and numbers that stand nowhere, and the places nearest to it."""

    start: int
    end: int
    missing: tuple[str, ...]
    places: list[Near]


def refuses(text: str) -> bool:
    """Whether a written answer says that there is none."""
    return bool(_REFUSAL.search(text[:200]))


def check(question: str, text: str, passages: Sequence[Passage], embedder: Embedder) -> list[Claim]:
    """Hold every statement of an answer against the passages.

    Args:
        question: its words count as given.
        text: the answer; marks like `[2]` are passed over.
        passages: what it was written from; `citation` counts in them.
        embedder: measures likeness.
    """
    claims = []
    for start, end, missing, places in measure(question, text, passages, embedder):
        scored = [(CLAIM(near._asdict()), -rank, near.passage) for rank, near in enumerate(places)]
        score, _, passage = max(scored, default=(0.0, 0, -1))
        supported = score >= SUPPORTED_AT and not missing
        claims.append(
            Claim(
                start=start,
                end=end,
                text=text[start:end],
                score=score,
                supported=supported,
                missing=missing,
                citation=passage if supported else None,
            )
        )
    return claims


def measure(question: str, text: str, passages: Sequence[Passage], embedder: Embedder) -> list[Measured]:
    """What `check` judges by."""
    places = list(_places(passages))
    held = frozenset[str]().union(*(place.terms for place in places)) | _terms(question)
    statements = [_statement(question, text, start, end, held) for start, end in _spans(text)]
    nearest = [_nearest(statement, places) for statement in statements]
    similar = _similarities(statements[:MOST_CLAIMS], nearest, embedder)
    similar += [[UNKNOWN_SIMILARITY] * len(near) for near in nearest[len(similar) :]]
    return [
        Measured(
            statement.start,
            statement.end,
            statement.missing,
            [Near(overlap, value, place.passage) for (overlap, place), value in zip(near, values, strict=True)],
        )
        for statement, near, values in zip(statements, nearest, similar, strict=True)
    ]


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Sentences that state something."""
    for start, end, _ in sentences(text):
        if any(c.isalnum() for c in _MARKS.sub("", text[start:end])):
            yield start, end


def _statement(question: str, text: str, start: int, end: int, held: frozenset[str]) -> _Statement:
    said = _MARKS.sub("", text[start:end])
    hard = list(dict.fromkeys(_names(said)))
    missing = tuple(token for token in hard if not _stands(token, held))
    named = {_number(term) for token in hard for term in expand(token)}
    content = {_number(term) for term in query_terms(said)[0] if term not in STOP_WORDS}
    asked = said
    if len(content) < FEW_TERMS:
        asked = f"{question} {said}"
        content |= {_number(term) for term in query_terms(question)[0] if term not in STOP_WORDS}
    weights = {term: NAME_WEIGHT if term in named else 1.0 for term in content}
    return _Statement(start, end, weights, missing, asked)


def _names(said: str) -> Iterator[str]:
    """Tokens that are names or numbers: with a digit, or with a capital that does not open the sentence."""
    for place, token in enumerate(tokens(said)):
        digit = any(c.isdigit() for c in token)
        capital = any(c.isupper() for c in (token if place else token[1:]))
        if digit or (capital and len(token) > 1 and token.casefold() not in STOP_WORDS):
            yield token


def _stands(token: str, held: frozenset[str]) -> bool:
    """Whether a name or number is among terms: whole, or in all of its parts ("1931-1945", "1931 to 1945")."""
    whole, *parts = map(_number, expand(token))
    return whole in held or (bool(parts) and held.issuperset(parts))


def _places(passages: Sequence[Passage]) -> Iterator[_Place]:
    for number, passage in enumerate(passages):
        spans = [(start, end) for start, end, _ in sentences(passage.text)]
        for (start, end), (_, next_end) in zip(spans, [*spans[1:], spans[-1]] if spans else (), strict=True):
            body = passage.text[start : max(end, next_end)]
            yield _Place(number, body, _terms(body))


def _terms(text: str) -> frozenset[str]:
    return frozenset(_number(term) for term in terms(text))


def _number(term: str) -> str:
    return _NUMBERS.get(term, term)


def _nearest(statement: _Statement, places: Sequence[_Place]) -> list[tuple[float, _Place]]:
    """The places that hold most of a statement's terms, with the share."""
    total = sum(statement.weights.values())
    if not total:
        return []
    shares = [
        (sum(weight for term, weight in statement.weights.items() if term in place.terms) / total, place)
        for place in places
    ]
    return sorted(shares, key=lambda share: -share[0])[:WINDOWS]


def _similarities(
    statements: Sequence[_Statement], nearest: Sequence[Sequence[tuple[float, _Place]]], embedder: Embedder
) -> list[list[float]]:
    """Cosines of each statement to its nearest places; every text is embedded once."""
    pairs = list(zip(statements, nearest, strict=False))
    texts = list(dict.fromkeys(t for s, near in pairs for t in (s.asked, *(place.text for _, place in near))))
    if not texts:
        return []
    vectors = dict(zip(texts, embedder.embed(texts), strict=True))
    return [[float(vectors[s.asked] @ vectors[place.text]) for _, place in near] for s, near in pairs]
