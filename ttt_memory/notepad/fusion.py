"""One ranking out of several, exact before similar.

Scores are brought to 0..1 per query and added (rank fusion loses: a passage at rank 45 of both lists must not beat the
first of one). A passage that holds the query to the word, in one sentence or as a rare code, gets more than any that is
only like it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad.sentences import sentences
from ttt_memory.notepad.terms import terms

DENSE_SHARE = 0.55
"""Weight of meaning against words; this and the next are measured on the developer halves."""
TOGETHER_SHARE = 0.3
"""Weight of the query's words standing together in one sentence, in the final score."""

COMPLETE = 0.999999
"""A sum of shares that rounding keeps from 1 is still all of them."""

Scores = NDArray[np.float64]


def fuse(dense: Scores, lexical: Scores) -> Scores:
    """Return one score of 0 to 1 a candidate from cosine similarities and BM25 scores, each [C]."""
    words = lexical / max(float(lexical.max(initial=0.0)), 1e-9)
    return np.asarray(DENSE_SHARE * spread(dense) + (1 - DENSE_SHARE) * words)


def spread(scores: NDArray[Any]) -> Scores:
    """Map scores linearly so that the lowest is 0 and the highest 1; all equal gives 1."""
    if not len(scores):
        return scores
    low, high = float(scores.min()), float(scores.max())
    return np.asarray((scores - low) / (high - low) if high > low else np.ones_like(scores))


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
    score = (1 - TOGETHER_SHARE) * fused + TOGETHER_SHARE * sentence**2
    if terms > 1 and sentence > COMPLETE:
        score += 1
    return score + 1 + exact if exact > 0 else score
