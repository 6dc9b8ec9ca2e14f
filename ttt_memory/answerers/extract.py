"""The extractive answerer: the sentence or two of the passages that best support an answer, quoted as they stand."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from ttt_memory.answerers.calibration import QUOTE
from ttt_memory.notepad.sentences import sentences
from ttt_memory.notepad.terms import query_terms, terms
from ttt_memory.types import Citation, Considered, Passage

if TYPE_CHECKING:
    from ttt_memory.notepad.embedders import Embedder

NOTHING_FOUND = "Nothing was found about this in what was read."

OVERLAP_WEIGHT = 1.0
PASSAGE_WEIGHT = 0.5
CODE_WEIGHT = 1.0
SECOND_WITHIN = 0.4
"""The second-best sentence is quoted, too, where its score is this close to the best one's."""
LEAST_SUPPORT = 0.3
"""Below this mean of similarity and overlap a sentence supports nothing. Measured on SQuAD 2 (developer half): it
refuses 78 % of questions that four articles cannot answer because four others would, and 0.6 % of those that the
articles answer; it cannot tell SQuAD's own unanswerable questions, which use the articles' words."""
MOST_SENTENCES = 12
"""So many sentences are embedded, those with the most words of the question: a few milliseconds each."""
LEAST_SENTENCES = 20
"""Rarity is reckoned as if there were at least so many sentences; with fewer every word would look common."""

_HEADING = re.compile(r"#{1,6}\s|Q(?:uestion)?\s*[:.)]|[=*_~-]{3,}")


@dataclass(frozen=True)
class Extract:
    """An answer made of quotes.

    Attributes:
        text: the quoted sentences, a line each; or that nothing was found.
        citations: the quoted sentences, then other passages that bear on the question; best first.
        grounded: False where nothing was found; then there are no citations.
        confidence: estimated probability that the quotes hold the answer; calibrated (`calibration.QUOTE`).
        considered: the sentences weighed against each other, best first.
        signals: what the confidence was computed from; empty where nothing could be weighed.
    """

    text: str
    citations: tuple[Citation, ...]
    grounded: bool
    confidence: float
    considered: tuple[Considered, ...] = ()
    signals: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Candidate:
    hit: int
    start: int
    end: int
    score: float
    similarity: float
    overlap: float

    @property
    def support(self) -> float:
        """Mean of likeness and words in common."""
        return (self.similarity + self.overlap) / 2


def extract(question: str, hits: Sequence[Passage], embedder: Embedder) -> Extract:
    """Answer a question by quoting from passages.

    Args:
        question: what was asked.
        hits: passages as `Notepad.search` gives them, best first.
        embedder: measures how near each sentence is to the question.

    Returns:
        One sentence, or two where it is not clear which one answers. Each citation quotes its document to the
        character: `source[start:end] == text`.
    """
    ranked = sorted(_candidates(question, hits, embedder), key=lambda c: (-c.score, c.hit, c.start))
    supported = [c for c in ranked if c.support >= LEAST_SUPPORT]
    signals = _signals(ranked)
    if not supported:
        return Extract(NOTHING_FOUND, (), False, 0.0, _considered(ranked, (), hits), signals)
    best = supported[0]
    quoted = [c for c in supported[:2] if best.score - c.score <= SECOND_WITHIN]
    quotes = _joined(quoted, hits)
    citations = [_cite(hits[c.hit], c.start, c.end, c.score) for c in quotes]
    seen = {c.hit for c in quoted}
    for c in supported:
        if c.hit not in seen:
            seen.add(c.hit)
            citations.append(_cite(hits[c.hit], 0, len(hits[c.hit].text), c.score))
    text = "\n".join(citation.text for citation in citations[: len(quotes)])
    return Extract(text, tuple(citations), True, QUOTE(signals), _considered(ranked, quoted, hits), signals)


def _signals(ranked: Sequence[_Candidate]) -> dict[str, float]:
    """What tells a quote that answers from one that does not. Independent of the scale of the passages' scores."""
    if not ranked:
        return {}
    best, *others = ranked
    return {
        "similarity": best.similarity,
        "overlap": best.overlap,
        "margin": best.support - max((c.support for c in others), default=0.0),
    }


def _considered(
    ranked: Sequence[_Candidate], quoted: Sequence[_Candidate], hits: Sequence[Passage]
) -> tuple[Considered, ...]:
    return tuple(
        Considered(
            **_cite(hits[c.hit], c.start, c.end, c.score).model_dump(),
            similarity=c.similarity,
            overlap=c.overlap,
            quoted=c in quoted,
        )
        for c in ranked
    )


def _candidates(question: str, hits: Sequence[Passage], embedder: Embedder) -> list[_Candidate]:
    """Score the sentences of the passages that could be an answer."""
    places = [(i, start, end) for i, hit in enumerate(hits) for start, end in _answers(hit.text)]
    weights, codes = query_terms(question)
    held = [weights.keys() & set(terms(hits[i].text[start:end])) for i, start, end in places]
    overlaps = _overlaps(held, weights)
    words = [
        OVERLAP_WEIGHT * overlap + PASSAGE_WEIGHT * hits[i].score + CODE_WEIGHT * any(code in found for code in codes)
        for (i, _, _), found, overlap in zip(places, held, overlaps, strict=True)
    ]
    kept = sorted(range(len(places)), key=lambda n: -words[n])[:MOST_SENTENCES]
    if not kept:
        return []
    bodies = [hits[i].text[start:end] for i, start, end in (places[n] for n in kept)]
    vectors = embedder.embed([question, *bodies])
    similarities = (vectors[1:] @ vectors[0]).tolist()
    return [
        _Candidate(*places[n], score=words[n] + similarity, similarity=similarity, overlap=overlaps[n])
        for n, similarity in zip(kept, similarities, strict=True)
    ]


def _overlaps(held: Sequence[Set[str]], weights: Iterable[str]) -> list[float]:
    """Return the share of the question's terms, by rarity among the sentences, that each sentence holds."""
    counts = Counter(term for found in held for term in found)
    every = max(len(held), LEAST_SENTENCES)
    rarity = {t: math.log1p((every - counts[t] + 0.5) / (counts[t] + 0.5)) for t in weights}
    total = sum(rarity.values()) or 1.0
    return [sum(rarity[t] for t in sorted(found)) / total for found in held]


def _answers(text: str) -> list[tuple[int, int]]:
    """Return the sentences that can be answers: no headings and no questions, unless there is nothing else."""
    found = [(start, end) for start, end, _ in sentences(text)]
    return [(start, end) for start, end in found if not _asks(text[start:end])] or found


def _asks(sentence: str) -> bool:
    bare = sentence.rstrip("\"'”’)]")
    return bare.endswith("?") or bool(_HEADING.match(sentence)) or not any(c.isalnum() for c in sentence)


def _joined(quoted: Sequence[_Candidate], hits: Sequence[Passage]) -> list[_Candidate]:
    """Make one quote of two sentences that follow each other."""
    if len(quoted) == 2 and quoted[0].hit == quoted[1].hit:
        early, late = sorted(quoted, key=lambda c: c.start)
        if not hits[early.hit].text[early.end : late.start].strip():
            best = quoted[0]
            return [replace(best, start=early.start, end=late.end)]
    return list(quoted)


def _cite(hit: Passage, start: int, end: int, score: float) -> Citation:
    return Citation(
        document_id=hit.document_id,
        start=hit.start + start,
        end=hit.start + end,
        text=hit.text[start:end],
        score=score,
    )
