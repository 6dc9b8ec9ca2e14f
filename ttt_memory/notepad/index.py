"""The in-memory index of one tenant's live passages: derived from the ledger, dropped and rebuilt at will."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ttt_memory.ledger.records import LiveMetadata, PassageVectors
from ttt_memory.notepad.dense import DenseIndex, Ids
from ttt_memory.notepad.filters import Predicate
from ttt_memory.notepad.lexical import Rows
from ttt_memory.notepad.surroundings import Source, Surroundings, survey

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Table:
    """Passages in order of id. Immutable: a change makes a new one, so that a search keeps the one it started with.

    Attributes:
        ids: passage ids, ascending, [N].
        lengths: term occurrences of each, [N].
        owners: number of the document each belongs to, [N].
        numbers: document id to number.
        sources: documents by number; None where removed.
    """

    ids: Ids
    lengths: NDArray[np.int32]
    owners: NDArray[np.int64]
    numbers: Mapping[str, int]
    sources: Sequence[Source | None]

    @cached_property
    def surroundings(self) -> Surroundings:
        """What stands beside each passage."""
        return survey(self.owners, self.sources)

    @cached_property
    def lengths_beside(self) -> NDArray[np.int64]:
        """Term occurrences of the passages before and after each, [N]."""
        padded = np.append(self.lengths.astype(np.int64), 0)  # row -1 is the one added here
        return np.asarray(padded[self.surroundings.before] + padded[self.surroundings.after])

    def named(self, query: Collection[str]) -> NDArray[np.float64]:
        """Return which share of the writers and dates that a query names each passage's document has: [N], 0 to 1."""
        beside = self.surroundings
        hits = [found[name] for found in (beside.writers, beside.dates) for name in query if name in found]
        counts = np.zeros(len(self.sources))
        for documents in hits:
            counts[documents] += 1
        return np.asarray(counts[self.owners] / max(1, len(hits)))

    def rows(self, ids: Ids) -> tuple[Rows, Mask]:
        """Return the rows of the given ids that are here, and which of them those are."""
        places = np.searchsorted(self.ids, ids)
        known = places < len(self.ids)
        known[known] = self.ids[places[known]] == ids[known]
        return places[known], known

    def allowed(self, matches: Predicate | None, as_of: datetime | None) -> Mask | None:
        """Return which passages belong to documents that pass, [N]; None where all may."""
        if matches is None and as_of is None:
            return None
        if as_of is not None and as_of.tzinfo is None:
            as_of = as_of.replace(tzinfo=UTC)
        passes = [
            source is not None
            and (as_of is None or source.observed_at <= as_of)
            and (matches is None or matches(source.metadata))
            for source in self.sources
        ]
        return np.asarray(np.array(passes, bool)[self.owners] if passes else np.zeros(len(self.ids), bool))


EMPTY = Table(np.empty(0, np.int64), np.empty(0, np.int32), np.empty(0, np.int64), {}, ())


class PassageIndex:
    """A table of passages and their vectors, kept in step. Changes need the caller's lock, searches share it."""

    def __init__(self, dimensions: int) -> None:
        self.table = EMPTY
        self.dense = DenseIndex(dimensions)

    def extend(self, documents: Sequence[LiveMetadata], passages: PassageVectors) -> None:
        """Add documents with their passages; what is here already is left as it is."""
        table = self.table
        new = [document for document in documents if document.document_id not in table.numbers]
        numbers = dict(table.numbers) | {d.document_id: len(table.sources) + i for i, d in enumerate(new)}
        fresh = {d.document_id for d in new}
        picked = np.array([i for i, owner in enumerate(passages.document_ids) if owner in fresh], np.int64)
        ids, order = np.unique(np.concatenate([table.ids, passages.ids[picked]]), return_index=True)
        owners = np.array([numbers[passages.document_ids[i]] for i in picked], np.int64)
        self.dense.add(passages.ids[picked], passages.vectors[picked])
        self.table = Table(
            ids,
            np.concatenate([table.lengths, passages.terms[picked]]).astype(np.int32)[order],
            np.concatenate([table.owners, owners])[order],
            numbers,
            (*table.sources, *map(Source.of, new)),
        )

    def discard(self, document_ids: Sequence[str]) -> None:
        """Remove documents with their passages; unknown ones are passed over."""
        table = self.table
        gone = {table.numbers[name] for name in document_ids if name in table.numbers}
        kept = ~np.isin(table.owners, list(gone))
        self.dense.remove(table.ids[~kept])
        self.table = Table(
            table.ids[kept],
            table.lengths[kept],
            table.owners[kept],
            {name: number for name, number in table.numbers.items() if number not in gone},
            tuple(None if number in gone else source for number, source in enumerate(table.sources)),
        )
