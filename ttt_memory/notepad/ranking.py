"""From a query's terms and vector to the best passages of an index."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad.dense import Vectors
from ttt_memory.notepad.fusion import Signals, fuse, shares, spread
from ttt_memory.notepad.index import Mask, PassageIndex, Table
from ttt_memory.notepad.late import Words, similarity
from ttt_memory.notepad.lexical import Postings, beside, bm25, idf
from ttt_memory.notepad.terms import term as index_form

CANDIDATES = 100
"""Passages that each search hands to the fusion, at least."""
HALF_WAY = 0.5
"""How far the second search moves from the query towards the best passage."""

StoredPostings = Mapping[str, tuple[NDArray[np.int64], NDArray[np.int32]]]
ReadTokens = Callable[[Sequence[int]], Mapping[int, bytes]]


@dataclass(frozen=True)
class Query:
    """What is looked for.

    Attributes:
        weights: of each term.
        codes: the terms that are code-shaped tokens.
        vector: the embedding, [D].
        words: its words with their vectors; None where the embedder has none.
    """

    weights: Mapping[str, float]
    codes: Sequence[str]
    vector: Vectors
    words: Words | None = None


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


def rank(
    index: PassageIndex,
    query: Query,
    stored: StoredPostings,
    token_vectors: ReadTokens,
    count: int,
    *,
    allowed: Mask | None,
) -> Ranking:
    """Rank at most `count` passages; equal scores in order of id.

    Args:
        stored: for each term of the query the ids of the passages that hold it, ascending, and its count in each.
        token_vectors: gives what is stored of some passages' words, by id.
        allowed: which of the index's rows may be found, [N]; None where all may.
    """
    table, depth = index.table, max(CANDIDATES, 2 * count)
    around = table.surroundings
    postings, total = _by_row(stored, table), len(table.ids)
    words = bm25(postings, query.weights, table.lengths)
    visible = postings if allowed is None else _within(postings, allowed)
    near_words = bm25(beside(visible, around.before, around.after), query.weights, table.lengths_beside)
    exact = _exact(postings, query.codes, total)
    if allowed is not None:
        words[~allowed] = near_words[~allowed] = exact[~allowed] = 0.0
    among = None if allowed is None else table.ids[allowed]
    rows = np.flatnonzero(exact)
    for scores in (words, near_words):
        best = np.argsort(-scores, kind="stable")[:depth]
        rows = np.union1d(rows, best[scores[best] > 0])
    near, _ = index.dense.nearest(query.vector, depth, among)
    rows = np.union1d(rows, table.rows(near)[0])
    moved = _moved(index, query.vector, rows, words)
    near, _ = index.dense.nearest(moved, depth, among)
    rows = np.union1d(rows, table.rows(near)[0])
    ids = table.ids[rows]
    vectors = index.dense.vectors(ids)
    rarity = {term: idf(len(postings[term][0]) if term in postings else 0, total) for term in query.weights}
    late = np.full(len(rows), np.nan)
    if query.words is not None:
        data = token_vectors(ids.tolist())
        weights = [_rarity(piece, rarity, total) for piece in query.words.pieces]
        late = similarity(query.words.vectors, weights, [data.get(id) for id in ids.tolist()])
    fused = fuse(
        Signals(
            meaning=(vectors @ query.vector).astype(np.float64),
            hop=(vectors @ moved).astype(np.float64),
            late=late,
            words=words[rows],
            beside=near_words[rows],
            named=table.named(query.weights)[rows],
            by_model=around.by_model[rows],
        ),
        shares(len(query.weights)),
    )
    best = np.lexsort((-fused, -exact[rows]))[:count]
    coverage = _shares(postings, rarity, total)
    picked = rows[best]
    columns = (values.tolist() for values in (table.ids[picked], fused[best], exact[picked], coverage[picked]))
    return Ranking([Candidate(*values) for values in zip(*columns, strict=True)], rarity)


def _rarity(piece: str, rarity: Mapping[str, float], total: int) -> float:
    """Return how rare the term is that a piece of a word belongs to; as rare as can be where that is not clear."""
    whole = index_form(piece)
    if whole in rarity:
        return rarity[whole]
    return max((value for other, value in rarity.items() if piece in other), default=idf(0, total))


def _moved(index: PassageIndex, vector: Vectors, rows: NDArray[np.int64], words: NDArray[np.float64]) -> Vectors:
    """Return the query's vector, moved half-way towards the passage that fits it best by meaning and words."""
    if not len(rows):
        return vector
    held = index.dense.vectors(index.table.ids[rows])
    first = spread(held @ vector) + words[rows] / max(float(words[rows].max()), 1e-9)
    moved = vector + HALF_WAY * held[int(first.argmax())]
    return np.asarray(moved / max(float(np.linalg.norm(moved)), 1e-9), np.float32)


def _by_row(stored: StoredPostings, table: Table) -> Postings:
    """Translate passage ids to rows; passages that the index does not hold (yet, or any more) are left out."""
    postings = {}
    for term, (ids, counts) in stored.items():
        rows, known = table.rows(ids)
        if len(rows):
            postings[term] = (rows, counts[known])
    return postings


def _within(postings: Postings, allowed: Mask) -> Postings:
    """Leave out passages that may not be found: they must not speak for their neighbours either."""
    return {term: (rows[allowed[rows]], counts[allowed[rows]]) for term, (rows, counts) in postings.items()}


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
