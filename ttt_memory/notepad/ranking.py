"""From a query's terms and vector to the best passages of an index: a first ranking, its leads, and a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad import late, leads
from ttt_memory.notepad.dense import Vectors
from ttt_memory.notepad.fusion import COMPLETE, Shares, Signals, filled, fuse, shares
from ttt_memory.notepad.index import Mask, PassageIndex, Table
from ttt_memory.notepad.lexical import Postings, beside, bm25, idf
from ttt_memory.notepad.reading import ROUNDING, Candidate, Ranking, Texts, best
from ttt_memory.notepad.standing import MARKERS, is_standing
from ttt_memory.notepad.surroundings import of_their_lines
from ttt_memory.notepad.terms import term as index_form

CANDIDATES = 100
"""Passages that each search hands to the fusion, at least."""

StoredPostings = Mapping[str, tuple[NDArray[np.int64], NDArray[np.int32]]]


class Stored(Texts, Protocol):
    """What is read of the ledger for one query."""

    def postings(self, terms: Sequence[str], *, most: int | None = None) -> StoredPostings:
        """For each term the ids of the passages that hold it, ascending, and its count in each.

        Terms that more than `most` passages hold are left out.
        """

    def token_vectors(self, ids: Sequence[int]) -> Mapping[int, bytes]:
        """What is stored of some passages' words, by id."""

    def holding(self, terms: Sequence[str], ids: Sequence[int]) -> Sequence[int]:
        """Which of some passages hold any of the terms."""


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
    words: late.Words | None = None


def rank(index: PassageIndex, query: Query, stored: Stored, limit: int, *, allowed: Mask | None) -> Ranking:
    """Find candidates for the `limit` best passages, and fuse what speaks for each.

    Args:
        allowed: which of the index's rows may be found, [N]; None where all may.
    """
    search = _Search(index, query, stored, max(CANDIDATES, 2 * limit), allowed)
    found = search.follow(search.first())
    return search.ranking(found, found.share)


@dataclass(frozen=True)
class _Known:
    """What is read of C passages.

    Attributes:
        rows: of the table, [C].
        vectors: [C, D].
        nearest: of each word of the query in each passage, [Q, C].
        standing: whether a passage is an instruction or a preference that is meant to last, [C].
    """

    rows: NDArray[np.int64]
    vectors: Vectors
    nearest: Vectors
    standing: Mask

    def joined(self, new: _Known) -> _Known:
        """Both together, in order of id."""
        rows = np.concatenate([self.rows, new.rows])
        order = np.argsort(rows)
        vectors = np.concatenate([self.vectors, new.vectors])[order]
        nearest = np.concatenate([self.nearest, new.nearest], axis=1)[:, order]
        return _Known(rows[order], vectors, nearest, np.concatenate([self.standing, new.standing])[order])


@dataclass(frozen=True)
class _Found:
    """C candidates in order of id, with how much each signal says among them, and the score of each, [C]."""

    known: _Known
    share: Shares
    fused: NDArray[np.float64]

    @property
    def rows(self) -> NDArray[np.int64]:
        return self.known.rows


class _Search:
    """One query: what is known of all N passages, and what is found out of its candidates."""

    def __init__(self, index: PassageIndex, query: Query, stored: Stored, depth: int, allowed: Mask | None) -> None:
        table = index.table
        self.index, self.query, self.stored, self.depth, self.allowed = index, query, stored, depth, allowed
        self.among = None if allowed is None else table.ids[allowed]
        self.total = len(table.ids)
        postings = _by_row(stored.postings(list(query.weights)), table)
        self.rarity = {t: idf(len(postings[t][0]) if t in postings else 0, self.total) for t in query.weights}
        around = table.surroundings
        self.words = bm25(postings, query.weights, table.lengths)
        visible = postings if allowed is None else _within(postings, allowed)
        self.beside = bm25(beside(visible, around.before, around.after), query.weights, table.lengths_beside)
        self.exact = _exact(postings, query.codes, self.total)
        self.named = table.named(query.weights)
        self.coverage = _shares(postings, self.rarity, self.total)
        if allowed is not None:
            self.words[~allowed] = self.beside[~allowed] = self.exact[~allowed] = 0.0
        pieces = query.words.pieces if query.words is not None else ()
        self.piece_rarity = [_rarity(piece, self.rarity, self.total) for piece in pieces]

    def first(self) -> _Found:
        """Candidates by words, by their neighbours' words and by meaning."""
        rows = np.flatnonzero(self.exact)
        to_the_word = np.where(self.coverage > COMPLETE, self.words, 0.0)
        for scores in (self.words, to_the_word, self.beside):
            rows = np.union1d(rows, _best(scores, self.depth))
        rows = np.union1d(rows, self._near(self.query.vector))
        known = self._read(rows)
        talk = float(self.index.table.surroundings.in_stream[rows].mean()) if len(rows) else 0.0
        share = shares(talk, len(self.rarity))
        return _Found(known, share, fuse(self._signals(known), share.first()))

    def follow(self, first: _Found) -> _Found:
        """Add what the best of these candidates lead to, and rank all again."""
        if first.share == first.share.first():
            return first  # leads count for nothing, the query is too short
        places, scores, texts = self._leads(first)
        if not texts:
            return first  # another process has removed them all meanwhile
        weights = leads.weigh(scores)
        naming = self._naming([leads.names(text, self.rarity) for text in texts[: leads.READ_LEADS]], weights)
        moved = leads.moved(self.query.vector, first.known.vectors[places[0]])
        new = np.setdiff1d(np.union1d(self._near(moved), _best(naming, self.depth)), first.rows)
        known = first.known.joined(self._read(new))
        there = np.searchsorted(known.rows, first.rows)
        lead = there[places]
        pieces = self.piece_rarity
        fresh = leads.gain(known.nearest, int(lead[0]), pieces) if pieces else np.zeros(len(known.rows))
        like, named = leads.likeness(known.vectors, known.vectors[lead], weights), naming[known.rows]
        # What the best lead leads to shall not pass it for that, nor what is equal to it.
        equal = there[np.abs(first.fused - first.fused[places[0]]) < ROUNDING]
        for values in (like, fresh, named):
            values[equal] = values.max()
        signals = replace(self._signals(known), like=like, fresh=fresh, names=named)
        return _Found(known, first.share, fuse(signals, first.share))

    def ranking(self, found: _Found, share: Shares) -> Ranking:
        """Return what is known of the candidates without their texts."""
        rows = found.rows
        columns = (self.index.table.ids[rows], found.fused, self.exact[rows], self.coverage[rows])
        candidates = [Candidate(*known) for known in zip(*(column.tolist() for column in columns), strict=True)]
        return Ranking(candidates, share, self.rarity)

    def _leads(self, first: _Found) -> tuple[NDArray[np.int64], list[float], list[str]]:
        """Return the places of the best candidates, their scores and texts, best first."""
        hits = best(self.ranking(first, first.share.first()), leads.LEADS, self.stored)
        places = np.searchsorted(self.index.table.ids[first.rows], [passage.id for _, passage in hits])
        return places, [score for score, _ in hits], [passage.text for _, passage in hits]

    def _naming(self, names: Sequence[Sequence[str]], weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return which share of the names in the leads each passage has, [N]."""
        terms = sorted({name for some in names for name in some})
        postings = _by_row(self.stored.postings(terms, most=leads.MOST_NAMING), self.index.table)
        naming = leads.naming(names, weights, postings, self.total)
        if self.allowed is not None:
            naming[~self.allowed] = 0.0
        return naming

    def _near(self, vector: Vectors) -> NDArray[np.int64]:
        """Return the rows nearest to a vector."""
        near, _ = self.index.dense.nearest(vector, self.depth, self.among)
        return self.index.table.rows(near)[0]

    def _read(self, rows: NDArray[np.int64]) -> _Known:
        """Read vectors of passages, compare their words with the query's, and see whether they are meant to last."""
        ids = self.index.table.ids[rows]
        vectors, standing = self.index.dense.vectors(ids), self._standing(rows)
        if self.query.words is None:
            return _Known(rows, vectors, np.empty((0, len(rows)), np.float32), standing)
        data = self.stored.token_vectors(ids.tolist())
        nearest = late.nearest(self.query.words.vectors, [data.get(id) for id in ids.tolist()])
        return _Known(rows, vectors, nearest, standing)

    def _standing(self, rows: NDArray[np.int64]) -> Mask:
        """Return which passages, [C], a user told an assistant for good."""
        table = self.index.table
        told = rows[table.surroundings.to_model[rows]]
        if not len(told):
            return np.zeros(len(rows), bool)
        marked = self.stored.holding(MARKERS, table.ids[told].tolist())
        standing = [passage.id for passage in self.stored.passages(marked) if is_standing(passage.text)]
        return np.isin(table.ids[rows], standing)

    def _signals(self, known: _Known) -> Signals:
        """Return what speaks for candidates, leads left out."""
        around, rows, nothing = self.index.table.surroundings, known.rows, np.zeros(len(known.rows))
        meaning = (known.vectors @ self.query.vector).astype(np.float64)
        similar = late.similarity(known.nearest, self.piece_rarity)
        return Signals(
            meaning=meaning,
            late=similar,
            words=self.words[rows],
            beside=self.beside[rows],
            named=self.named[rows],
            by_model=around.by_model[rows],
            line=of_their_lines(filled(similar, meaning), around.lines[rows], around.line_lengths[rows]),
            standing=known.standing,
            like=nothing,
            fresh=nothing,
            names=nothing,
        )


def _best(scores: NDArray[np.float64], count: int) -> NDArray[np.int64]:
    """Return the rows of the highest scores above 0."""
    best = np.argsort(-scores, kind="stable")[:count]
    return best[scores[best] > 0]


def _rarity(piece: str, rarity: Mapping[str, float], total: int) -> float:
    """Return how rare the term is that a piece of a word belongs to; as rare as can be where that is not clear."""
    whole = index_form(piece)
    if whole in rarity:
        return rarity[whole]
    return max((value for other, value in rarity.items() if piece in other), default=idf(0, total))


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
