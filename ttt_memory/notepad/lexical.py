"""BM25 over the ledger's postings, with one tenant's own statistics.

score(q, p) = sum over terms t of idf(t) * tf * (K1 + 1) / (tf + K1 * (1 - B + B * terms(p) / mean terms)),
idf(t) = ln(1 + (N - df + 0.5) / (df + 0.5)), with N, df and the mean counted over the tenant's live passages.
(Robertson and Zaragoza, The Probabilistic Relevance Framework: BM25 and Beyond, 2009.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

K1 = 0.9
B = 0.75

Rows = NDArray[np.int64]
Postings = Mapping[str, tuple[Rows, NDArray[np.int32]]]


def idf(df: int, total: int) -> float:
    """Return the inverse document frequency of a term that `df` of `total` passages hold; never negative."""
    return math.log1p((total - df + 0.5) / (df + 0.5))


def beside(postings: Postings, before: Rows, after: Rows) -> Postings:
    """Return for each passage the postings of the one before and the one after it (rows, or -1 for none) as its own."""
    moved = {}
    for term, (rows, counts) in postings.items():
        total = np.zeros(len(before), np.int32)
        for neighbour in (before[rows], after[rows]):
            there = neighbour >= 0
            total[neighbour[there]] += counts[there]  # a passage is before one other at most, so no row comes twice
        found = np.flatnonzero(total)
        moved[term] = (found, total[found])
    return moved


def bm25(
    postings: Postings, weights: Mapping[str, float], lengths: NDArray[np.signedinteger[Any]]
) -> NDArray[np.float64]:
    """Score every passage.

    Args:
        postings: for each query term the rows that hold it (each once) and its count in them.
        weights: how much each term of the query counts; terms without postings add nothing.
        lengths: number of term occurrences of each passage, [N].

    Returns:
        [N] scores, 0 where no term occurs. Summed in the order of `weights`, so equal inputs give equal bits.
    """
    total = len(lengths)
    scores = np.zeros(total)
    if not total:
        return scores
    norms = K1 * (1 - B + B * lengths / max(float(lengths.mean()), 1.0))
    for term, weight in weights.items():
        if term not in postings:
            continue
        rows, counts = postings[term]
        scores[rows] += weight * idf(len(rows), total) * counts * (K1 + 1) / (counts + norms[rows])
    return scores
