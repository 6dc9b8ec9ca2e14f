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
        late: late interaction of their words.
        words: shared words, by BM25.
        beside: the same of the passages before and after.
        named: the query names the writer or the date.
        own: not written by a model, whose replies are many times longer than the questions, and repeat them.
        line: late interaction of the best passages of the same talk or document.
        standing: cosine once more, of what a user told an assistant for good (`standing.py`).
        like: cosine of passage and leads (`leads.py`).
        fresh: the passage has words of the query that the best lead leaves open.
        names: the leads name what the passage names.
        together: the query's words standing together in one sentence; not of what is fused, but of the final score.
    """

    meaning: float
    late: float
    words: float
    beside: float
    named: float
    own: float
    line: float
    standing: float
    like: float
    fresh: float
    names: float
    together: float

    def first(self) -> Shares:
        """The same while no leads are known."""
        return self.following(0.0)

    def following(self, part: float) -> Shares:
        """The same with such a part, 0 to 1, of what leads say."""
        return self._replace(like=part * self.like, fresh=part * self.fresh, names=part * self.names)


DOCUMENTS = Shares(0.07, 0.035, 0.016, 0.006, 0.01, 0.04, 0.032, 0.0, 0.08, 0.07, 0.55, 0.09)
"""For texts that stand for themselves: what leads from one to another is what they name."""
TALK = Shares(0.06, 0.15, 0.04, 0.07, 0.11, 0.15, 0.25, 0.12, 0.10, 0.02, 0.02, 0.035)
"""For the turns of a stream: short, about what the talk is about, and understood from what was said around them."""

ONE_STEP, TWO_STEPS = 4, 8
"""Terms of a query: one this short is answered by one passage, one this long has room to lead from one to another."""

COMPLETE = 0.999999
"""A sum of shares that rounding keeps from 1 is still all of them."""

Scores = NDArray[np.float64]


@dataclass(frozen=True)
class Signals:
    """What speaks for each of C candidates of one query, each [C].

    Attributes:
        meaning: cosine of passage and query.
        late: late interaction; nan where a passage has no token vectors.
        words: BM25 of the passage.
        beside: BM25 of its neighbours.
        named: share of what the query names of writers and dates that this passage's document has, 0 to 1.
        by_model: whether a model wrote it.
        line: mean of the best passages of the same line, 0 to 1.
        standing: whether it is an instruction or a preference, told to an assistant for good.
        like: cosine of passage and leads.
        fresh: what it says of what the best lead leaves open, 0 and above.
        names: share of the names in the leads that it has, 0 to 1.
    """

    meaning: Scores
    late: Scores
    words: Scores
    beside: Scores
    named: Scores
    by_model: NDArray[np.bool_]
    line: Scores
    standing: NDArray[np.bool_]
    like: Scores
    fresh: Scores
    names: Scores


def shares(talk: float, terms: int) -> Shares:
    """Return the shares for candidates of which such a part, 0 to 1, belongs to streams, and a query of so many terms.

    In documents a short query follows no leads; a talk's questions are short, and what leads add there is likeness.
    """
    room = min(max((terms - ONE_STEP) / (TWO_STEPS - ONE_STEP), 0.0), 1.0)
    documents = DOCUMENTS.following(room)
    return Shares(*((1 - talk) * one + talk * other for one, other in zip(documents, TALK, strict=True)))


def fuse(signals: Signals, share: Shares) -> Scores:
    """Return one score of 0 to 1 a candidate, [C]."""
    meaning = spread(signals.meaning)
    values = np.stack(
        [
            meaning,
            filled(signals.late, signals.meaning),
            _portion(signals.words),
            _portion(signals.beside),
            signals.named,
            (~signals.by_model).astype(np.float64),
            signals.line,
            np.where(signals.standing, meaning, 0.0),
            spread(signals.like),
            _portion(signals.fresh),
            signals.names,
        ]
    )
    weights = np.array(share[: len(values)])  # all but `together`
    # Not a matrix product: equal passages must get equal bits, wherever they stand.
    return np.asarray((weights[:, None] * values).sum(0) / weights.sum())


def spread(scores: NDArray[Any]) -> Scores:
    """Map scores linearly so that the lowest is 0 and the highest 1; all equal gives 1."""
    if not len(scores):
        return np.asarray(scores, np.float64)
    low, high = float(scores.min()), float(scores.max())
    return np.asarray((scores - low) / (high - low) if high > low else np.ones_like(scores))


def _portion(scores: Scores) -> Scores:
    """Map scores of 0 and above so that the highest is 1 and 0 stays."""
    return np.asarray(scores / max(float(scores.max(initial=0.0)), 1e-9))


def filled(late: Scores, meaning: Scores) -> Scores:
    """Spread what is known; passages without token vectors (of an older release) are judged by their meaning."""
    known = ~np.isnan(late)
    result = spread(meaning)
    result[known] = spread(late[known])
    return result


def together(text: str, rarity: Mapping[str, float]) -> float:
    """Return the largest share of the query's terms, by rarity, that one sentence of a passage holds: 0 to 1.

    A bag of words cannot tell "the key for Pepper Island" from "the key for Pepper North" with an island near by.
    """
    total = sum(rarity.values())
    if not total:
        return 0.0
    held = (rarity.keys() & set(terms(text[start:end])) for start, end, _ in sentences(text))
    return max((sum(rarity[t] for t in sorted(found)) / total for found in held), default=0.0)


def final(fused: float, sentence: float, exact: float, share: Shares, *, terms: int) -> float:
    """Return the score of a passage.

    Args:
        fused: from `fuse`, by the same shares.
        sentence: from `together`.
        exact: share of the query's rare codes that the passage holds, by rarity, 0 to 1.
        share: how much each signal says.
        terms: number of terms of the query.

    Returns:
        0 to 1 by likeness; one more where a single sentence holds all of two terms or more; one to two more where
        the passage holds rare codes.
    """
    part = share.together / sum(share)
    score = (1 - part) * fused + part * sentence**2
    if terms > 1 and sentence > COMPLETE:
        score += 1
    return score + 1 + exact if exact > 0 else score
