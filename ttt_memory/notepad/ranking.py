"""From a query's terms and vector to the best passages of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad.dense import Vectors
from ttt_memory.notepad.fusion import fuse
from ttt_memory.notepad.index import Mask, PassageIndex, Table
from ttt_memory.notepad.lexical import Postings, bm25, idf

CANDIDATES = 100
"""Passages that each of the two searches hands to the fusion, at least."""

StoredPostings = Mapping[str, tuple[NDArray[np.int64], NDArray[np.int32]]]


@dataclass(frozen=True)
class Query:
    """What is looked for: the weight of each term, the terms that are code-shaped tokens, the embedding [D]."""

    weights: Mapping[str, float]
    codes: Sequence[str]
    vector: Vectors


@dataclass(frozen=True)
class Candidate:
    """A passage that may be among the best.

    Attributes:
        fused: by meaning and words, 0 to 1.
        exact: share of the query's rare codes that it holds, by rarity, 0 to 1.
        coverage: share of the query's terms that it holds, by rarity, 0 to 1.
    """

    id: int
    fused: float
    exact: float
    coverage: float


@dataclass(frozen=True)
class Ranking:
    """The best passages by index alone, best first, and how rare each term of the query is."""

    candidates: Sequence[Candidate]
    rarity: Mapping[str, float]


def rank(index: PassageIndex, query: Query, stored: StoredPostings, count: int, *, allowed: Mask | None) -> Ranking:
    """Rank at most `count` passages; equal scores in order of id.

    Args:
        stored: for each term of the query the ids of the passages that hold it, ascending, and its count in each.
        allowed: which of the index's rows may be found, [N]; None where all may.
    """
    table, depth = index.table, max(CANDIDATES, 2 * count)
    postings, total = _by_row(stored, table), len(table.ids)
    lexical = bm25(postings, query.weights, table.lengths)
    exact = _exact(postings, query.codes, total)
    if allowed is not None:
        lexical[~allowed] = exact[~allowed] = 0.0
    near, _ = index.dense.nearest(query.vector, depth, None if allowed is None else table.ids[allowed])
    wordy = np.argsort(-lexical, kind="stable")[:depth]
    rows = np.unique(np.concatenate([table.rows(near)[0], wordy[lexical[wordy] > 0], np.flatnonzero(exact)]))
    dense = (index.dense.vectors(table.ids[rows]) @ query.vector).astype(np.float64)
    fused = fuse(dense, lexical[rows])
    best = np.lexsort((-fused, -exact[rows]))[:count]
    rarity = {term: idf(len(postings[term][0]) if term in postings else 0, total) for term in query.weights}
    coverage = _shares(postings, rarity, total)
    picked = rows[best]
    columns = (values.tolist() for values in (table.ids[picked], fused[best], exact[picked], coverage[picked]))
    return Ranking([Candidate(*values) for values in zip(*columns, strict=True)], rarity)


def _by_row(stored: StoredPostings, table: Table) -> Postings:
    """Translate passage ids to rows; passages that the index does not hold (yet, or any more) are left out."""
    postings = {}
    for term, (ids, counts) in stored.items():
        rows, known = table.rows(ids)
        if len(rows):
            postings[term] = (rows, counts[known])
    return postings


def _exact(postings: Postings, codes: Sequence[str], total: int) -> NDArray[np.float64]:
    """Return the share of the query's rare codes that each passage holds, by rarity: [N], 0 to 1."""
    rare = [code for code in codes if code in postings and len(postings[code][0]) <= max(5, total // 100)]
    return _shares(postings, {code: idf(len(postings[code][0]), total) for code in rare}, total)


def _shares(postings: Postings, rarity: Mapping[str, float], total: int) -> NDArray[np.float64]:
    held = np.zeros(total)
    whole = sum(rarity.values()) or 1.0
    for term, value in rarity.items():
        if term in postings:
            held[postings[term][0]] += value / whole
    return held
