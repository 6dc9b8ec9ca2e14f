"""The exact memory: passages found by meaning and by words, quoted to the character."""

from __future__ import annotations

import threading
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from ttt_memory.errors import InvalidInputError
from ttt_memory.ledger.records import DocumentRow, LiveMetadata, NewPassage
from ttt_memory.notepad import late
from ttt_memory.notepad.checks import check
from ttt_memory.notepad.filters import compile_filter
from ttt_memory.notepad.index import PassageIndex
from ttt_memory.notepad.locks import ReadWriteLock
from ttt_memory.notepad.preparing import prepare
from ttt_memory.notepad.ranking import Query, rank
from ttt_memory.notepad.reading import best
from ttt_memory.notepad.terms import query_terms
from ttt_memory.types import Finding, Passage

if TYPE_CHECKING:
    from ttt_memory.ledger.tenant import TenantLedger
    from ttt_memory.notepad.embedders import Embedder

MAX_QUERY = 4_000
"""Characters of a query that are looked at."""


class ExactMemory(Protocol):
    """What another retriever (pgvector, Qdrant, a framework's) must offer to stand in for the notepad."""

    def add(self, document_id: str) -> None:
        """Make a document of the ledger findable. Adding it again changes nothing."""

    def remove(self, document_ids: Sequence[str]) -> None:
        """Make documents unfindable; unknown ids are passed over."""

    def search(
        self, query: str, *, limit: int = 5, where: Mapping[str, Any] | None = None, as_of: datetime | None = None
    ) -> list[Passage]:
        """Return passages, best first, each with `source[start:end] == text`."""


class Notepad:
    """One tenant's passages in memory, following its ledger.

    It writes nothing: `prepare` computes what `TenantLedger.append` commits together with the text, and `refresh`
    takes in what is committed. `search` may run in any number of threads while another refreshes.
    """

    def __init__(self, ledger: TenantLedger, embedder: Embedder) -> None:
        self._ledger, self._embedder = ledger, embedder
        self._lock = ReadWriteLock()
        self._refreshing = threading.Lock()
        self._index = PassageIndex(embedder.dimensions)
        self._seen: tuple[int, int, int] | None = None
        self.refresh()

    def __len__(self) -> int:
        """Number of passages that can be found."""
        return len(self._index.table.ids)

    def prepare(self, text: str, *, heading: str = "") -> Generator[tuple[int, int], None, list[NewPassage]]:
        """Cut a text into passages, count their terms and embed them: what `TenantLedger.append` takes.

        Yields `(done, total)` passages between steps; the total is an estimate until all is cut.
        """
        return (yield from prepare(text, self._embedder, heading=heading))

    def refresh(self) -> None:
        """Bring the index up to the ledger: cheap after appends, a rebuild after anything else."""
        with self._refreshing:
            head = self._ledger.head()
            if self._seen == (head.version, head.epoch, head.position):
                return
            if self._seen is None or not self._take_appends(*self._seen):
                self._rebuild()
            self._seen = (head.version, head.epoch, head.position)

    def add(self, document_id: str) -> None:
        """Make one committed document findable. Adding it again changes nothing."""
        with self._refreshing:
            self._extend([self._ledger.document(document_id)])

    def remove(self, document_ids: Sequence[str]) -> None:
        """Make documents unfindable; unknown ids are passed over."""
        with self._refreshing, self._lock.write():
            self._index.discard(document_ids)

    def search(
        self, query: str, *, limit: int = 5, where: Mapping[str, Any] | None = None, as_of: datetime | None = None
    ) -> list[Passage]:
        """Find the passages that a question, a phrase or a code is about.

        Args:
            query: what to look for; the first 4,000 characters count.
            limit: at most so many passages.
            where: filter over the documents' metadata (`ttt_memory.notepad.filters`).
            as_of: only documents observed at this moment or before.

        Returns:
            Passages, best first, `source[start:end] == text`. Scores compare within one query (`fusion.final` says how
            they are made). Ties go to the passage written first.

        Raises:
            InvalidInputError: the query is empty, `limit` below 1, or (InvalidFilterError) `where` malformed.
        """
        query = query[:MAX_QUERY]
        if not query.strip():
            raise InvalidInputError("The query is empty.", fix="Say what to look for.")
        if limit < 1:
            raise InvalidInputError(f"limit={limit} is less than 1.")
        matches = compile_filter(where) if where else None
        weights, codes = query_terms(query)
        vectors, words = late.embed(self._embedder, [query])
        asked = Query(weights, codes, vectors[0], words[0] if words else None)
        with self._lock.read():
            allowed = self._index.table.allowed(matches, as_of)
            ranking = rank(self._index, asked, self._ledger, limit, allowed=allowed)
        hits = best(ranking, limit, self._ledger)
        return [
            Passage(
                document_id=passage.document_id,
                start=passage.start,
                end=passage.end,
                text=passage.text,
                score=score,
                metadata=passage.metadata,
            )
            for score, passage in hits
        ]

    def verify(self) -> list[Finding]:
        """Compare the index with the ledger, and the ledger's passages with what this release would compute.

        Returns what is wrong; nothing, where all is well. Reads every passage's text; embeds a few of them again.
        """
        self.refresh()
        with self._lock.read():
            return check(self._index, self._ledger, self._embedder)

    def _take_appends(self, version: int, epoch: int, position: int) -> bool:
        """Add what was appended since; False where the ledger changed in any other way, too.

        Every append is one version, so as many new documents as versions means that nothing else happened.
        """
        head = self._ledger.head()
        new = [row for row in self._ledger.documents(after_position=position) if row.position <= head.position]
        if head.epoch != epoch or head.version - version != len(new):
            return False
        self._extend(new)
        return True

    def _extend(self, rows: Sequence[DocumentRow]) -> None:
        new = [row for row in rows if row.id not in self._index.table.numbers]
        if not new:
            return
        documents = [
            LiveMetadata(r.id, r.metadata, r.observed_at, r.ingested_at, r.stream, r.sequence, r.origin) for r in new
        ]
        passages = self._ledger.passage_vectors([row.id for row in new])
        with self._lock.write():
            self._index.extend(documents, passages)

    def _rebuild(self) -> None:
        index = PassageIndex(self._embedder.dimensions)
        index.extend(self._ledger.live_metadata(), self._ledger.passage_vectors())
        with self._lock.write():
            self._index = index
