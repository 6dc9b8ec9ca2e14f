"""One ranking out of several, exact before similar.

Scores are brought to 0..1 per query and added (rank fusion loses: a passage at rank 45 of both lists must not beat the
first of one). A passage that holds the query to the word, in one sentence or as a rare code, gets more than any that is
only like it. The shares are fitted to the developer halves that `benchmarks/recall.py` measures, one setting for all.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad.sentences import sentences
from ttt_memory.notepad.terms import terms


class Shares(NamedTuple):
    """How much each signal says.

    Attributes:
        meaning: cosine of passage and query.
        hop: cosine of passage and the query moved towards the best passage: what that leads to is evidence, too.
        late: late interaction of their words.
        words: shared words, by BM25.
        beside: the same of the passages before and after.
        named: the query names the writer or the date.
        own: not written by a model, whose replies are many times longer than the questions, and repeat them.
        together: the query's words standing together in one sentence, of the final score.
    """

    meaning: float
    hop: float
    late: float
    words: float
    beside: float
    named: float
    own: float
    together: float


SHORT = Shares(0.20, 0.15, 1.00, 0.03, 0.25, 0.25, 0.50, 0.125)
"""For a query of 5 terms or fewer: it is about one thing, and each of its words says much."""
LONG = Shares(0.45, 1.00, 0.35, 0.30, 0.20, 0.35, 0.90, 0.27)
"""For one of 10 terms or more: it often asks for several things at once. Those between are given a mixture."""
SHORT_TERMS, LONG_TERMS = 5, 10

COMPLETE = 0.999999
"""A sum of shares that rounding keeps from 1 is still all of them."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Signals:
    """What speaks for each of C candidates of one query, each [C].

    Attributes:
        meaning: cosine of passage and query.
        hop: cosine of passage and moved query.
        late: late interaction; nan where a passage has no token vectors.
        words: BM25 of the passage.
        beside: BM25 of its neighbours.
        named: share of what the query names of writers and dates that this passage's document has, 0 to 1.
        by_model: whether a model wrote it.
    """

    meaning: Scores
    hop: Scores
    late: Scores
    words: Scores
    beside: Scores
    named: Scores
    by_model: NDArray[np.bool_]


def shares(terms: int) -> Shares:
    """Return the shares for a query of so many terms."""
    long = min(max((terms - SHORT_TERMS) / (LONG_TERMS - SHORT_TERMS), 0.0), 1.0)
    return Shares(*((1 - long) * one + long * other for one, other in zip(SHORT, LONG, strict=True)))


def fuse(signals: Signals, share: Shares) -> Scores:
    """Return one score of 0 to 1 a candidate, [C]."""
    meaning = spread(signals.meaning)
    values = np.stack(
        [
            meaning,
            spread(signals.hop),
            _filled(signals.late, meaning),
            _portion(signals.words),
            _portion(signals.beside),
            signals.named,
            (~signals.by_model).astype(np.float64),
        ]
    )
    weights = np.array(share[: len(values)])  # all but `together`
    # Not a matrix product: equal passages must get equal bits, wherever they stand.
    return np.asarray((weights[:, None] * values).sum(0) / weights.sum())


def spread(scores: NDArray[Any]) -> Scores:
    """Map scores linearly so that the lowest is 0 and the highest 1; all equal gives 1."""
    if not len(scores):
        return scores
    low, high = float(scores.min()), float(scores.max())
    return np.asarray((scores - low) / (high - low) if high > low else np.ones_like(scores))


def _portion(scores: Scores) -> Scores:
    """Map scores of 0 and above so that the highest is 1 and 0 stays."""
    return np.asarray(scores / max(float(scores.max(initial=0.0)), 1e-9))


def _filled(late: Scores, meaning: Scores) -> Scores:
    """Spread what is known; passages without token vectors (of an older release) are judged by their meaning."""
    known = ~np.isnan(late)
    filled = meaning.copy()
    filled[known] = spread(late[known])
    return filled


def together(text: str, rarity: Mapping[str, float]) -> float:
    """Return the largest share of the query's terms, by rarity, that one sentence of a passage holds: 0 to 1.

    A bag of words cannot tell "the key for Pepper Island" from "the key for Pepper North" with an island near by.
    """
    total = sum(rarity.values())
    if not total:
        return 0.0
    held = (rarity.keys() & set(terms(text[start:end])) for start, end, _ in sentences(text))
    return max((sum(rarity[t] for t in sorted(found)) / total for found in held), default=0.0)


def final(fused: float, sentence: float, exact: float, *, terms: int) -> float:
    """Return the score of a passage.

    Args:
        fused: from `fuse`.
        sentence: from `together`.
        exact: share of the query's rare codes that the passage holds, by rarity, 0 to 1.
        terms: number of terms of the query.

    Returns:
        0 to 1 by likeness; one more where a single sentence holds all of two terms or more; one to two more where
        the passage holds rare codes.
    """
    share = shares(terms).together
    score = (1 - share) * fused + share * sentence**2
    if terms > 1 and sentence > COMPLETE:
        score += 1
    return score + 1 + exact if exact > 0 else score
