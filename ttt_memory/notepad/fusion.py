"""One ranking out of two, exact before similar.

Scores are brought to 0..1 per query and added (rank fusion loses: a passage at rank 45 of both lists must not beat the
first of one). A passage that holds one of the query's rare, code-shaped tokens gets more than any other can have.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DENSE_SHARE = 0.55
"""Weight of meaning against words; measured on the developer halves (docs/decisions)."""

Scores = NDArray[np.float64]


def fuse(dense: Scores, lexical: Scores, exact: Scores) -> Scores:
    """Return one score a candidate.

    Args:
        dense: cosine similarities of the candidates, [C].
        lexical: their BM25 scores, [C].
        exact: share of the query's rare code-shaped tokens that each holds, weighted by rarity, [C], 0 to 1.

    Returns:
        [C]: 0 to 1 for similar passages, above 1 for those with an exact hit.
    """
    fused = DENSE_SHARE * spread(dense) + (1 - DENSE_SHARE) * lexical / max(float(lexical.max(initial=0.0)), 1e-9)
    return np.asarray(np.where(exact > 0, 1 + exact + fused, fused))


def spread(scores: Scores) -> Scores:
    """Map scores linearly so that the lowest is 0 and the highest 1; all equal gives 1."""
    if not len(scores):
        return scores
    low, high = float(scores.min()), float(scores.max())
    return (scores - low) / (high - low) if high > low else np.ones_like(scores)
