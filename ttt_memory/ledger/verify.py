"""Checking everything stored against everything else. Reads only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from sqlalchemy import Connection, RowMapping, func, select

from ttt_memory.errors import CorruptionError
from ttt_memory.ledger.documents import document_row
from ttt_memory.ledger.fork import Fork
from ttt_memory.ledger.records import LedgerFinding, Point
from ttt_memory.ledger.schema import (
    CHUNK_CHARACTERS,
    blobs,
    checkpoints,
    chunks,
    documents,
    passages,
    postings,
    snapshots,
    uploads,
)

Check = Callable[[Connection], Iterator[LedgerFinding]]


class Verify(Fork):
    """`verify`, one check after the other."""

    CHECKS = ("database", "documents", "lineage", "passages", "postings", "checkpoints", "snapshots")

    def _verify(self, connection: Connection) -> Iterator[LedgerFinding]:
        if self._store.sqlite:
            yield from self._verify_database(connection)
        yield from self._verify_documents(connection)
        yield from self._verify_lineage(connection)
        yield from self._verify_passages(connection)
        yield from self._verify_postings(connection)
        yield from self._verify_checkpoints(connection)
        yield from self._verify_snapshots(connection)

    def _verify_database(self, connection: Connection) -> Iterator[LedgerFinding]:
        for (message,) in connection.exec_driver_sql("PRAGMA integrity_check").all():
            if message != "ok":
                yield LedgerFinding("database", self._store.shown, message)
        for table, *_ in connection.exec_driver_sql("PRAGMA foreign_key_check").all():
            yield LedgerFinding("database", table, "a row refers to one that does not exist")

    def _committed(self, connection: Connection) -> list[RowMapping]:
        query = select(documents).where(documents.c.tenant == self._tenant, documents.c.position.is_not(None))
        return list(connection.execute(query.order_by(documents.c.position)).mappings())

    def _verify_documents(self, connection: Connection) -> Iterator[LedgerFinding]:
        found = partial(LedgerFinding, "documents")
        for row in self._committed(connection):
            query = select(chunks.c.index, chunks.c.start_char).where(
                chunks.c.tenant == self._tenant, chunks.c.document == row["id"]
            )
            places = [tuple(place) for place in connection.execute(query.order_by(chunks.c.index))]
            count = -(-row["characters"] // CHUNK_CHARACTERS)
            if places != [(index, index * CHUNK_CHARACTERS) for index in range(count)]:
                yield found(row["id"], f"its chunks are {[index for index, _ in places]}, {count} are due")
                continue
            try:
                document = document_row(row)
                text = self._text(connection, document, 0, document.characters)
                key = self.content_key(text, document.stream, document.sequence)
            except (CorruptionError, ValueError, TypeError) as error:
                yield found(row["id"], str(error))
                continue
            if len(text.encode()) != document.size:
                yield found(document.id, f"it has {len(text.encode())} bytes of text, {document.size} are noted")
            if key != document.content_key:
                yield found(document.id, "its text is not what its content key was made from")
        query = select(chunks.c.document).outerjoin(
            documents, (documents.c.tenant == chunks.c.tenant) & (documents.c.id == chunks.c.document)
        )
        orphans = query.where(chunks.c.tenant == self._tenant, documents.c.id.is_(None)).distinct()
        for id in connection.execute(orphans).scalars():
            yield found(id, "chunks without their document")

    def _verify_lineage(self, connection: Connection) -> Iterator[LedgerFinding]:
        tenant = self._row(connection)
        head = Point(tenant["branch"], tenant["head_position"])
        inside = set(connection.execute(self._documents_at(head, documents.c.id)).scalars())
        seen: set[int] = set()
        for row in self._committed(connection):
            if (row["live_key"] is not None) != (row["id"] in inside):
                yield LedgerFinding("lineage", row["id"], "its live flag does not follow from the branches")
            if row["live_key"] not in {None, row["content_key"]}:
                yield LedgerFinding("lineage", row["id"], "its live key is not its content key")
            if (row["live_key"] is None) != (row["detached_at"] is not None):
                yield LedgerFinding("lineage", row["id"], "its time of detachment does not fit its live flag")
            if row["position"] in seen or not 0 < row["position"] < tenant["next_position"]:
                yield LedgerFinding("lineage", row["id"], f"its position {row['position']} is taken or was never given")
            seen.add(row["position"])

    def _verify_passages(self, connection: Connection) -> Iterator[LedgerFinding]:
        found = partial(LedgerFinding, "passages")
        query = (
            select(
                passages.c.id,
                passages.c.document,
                passages.c.ordinal,
                passages.c.start_char,
                passages.c.end_char,
                func.length(passages.c.embedding),
                documents.c.characters,
            )
            .outerjoin(documents, (documents.c.tenant == passages.c.tenant) & (documents.c.id == passages.c.document))
            .where(passages.c.tenant == self._tenant)
            .order_by(passages.c.document, passages.c.ordinal)
        )
        before, next_ordinal, width = "", 0, None
        for id, document, ordinal, start, end, size, characters in connection.execute(query):
            next_ordinal = 0 if document != before else next_ordinal
            width = size if width is None else width
            if characters is None:
                yield found(str(id), "its document does not exist")
            elif not 0 <= start <= end <= characters:
                yield found(str(id), f"[{start}:{end}] is outside its document of {characters} characters")
            if ordinal != next_ordinal:
                yield found(str(id), f"it is number {ordinal} of its document, {next_ordinal} is due")
            if size != width or size % 2:
                yield found(str(id), f"its vector has {size} bytes, others have {width}")
            before, next_ordinal = document, ordinal + 1

    def _verify_postings(self, connection: Connection) -> Iterator[LedgerFinding]:
        found = partial(LedgerFinding, "postings")
        sums = (
            select(postings.c.passage, func.sum(postings.c.tf))
            .where(postings.c.tenant == self._tenant)
            .group_by(postings.c.passage)
        )
        counted = {passage: int(total) for passage, total in connection.execute(sums)}
        query = select(passages.c.id, passages.c.terms).where(passages.c.tenant == self._tenant)
        for id, terms in connection.execute(query):
            total = counted.pop(id, 0)
            if total != terms:
                yield found(str(id), f"its postings count {total} terms, {terms} are noted")
        for id in counted:
            yield found(str(id), "postings without their passage")

    def _verify_checkpoints(self, connection: Connection) -> Iterator[LedgerFinding]:
        found = partial(LedgerFinding, "checkpoints")
        mine = select(checkpoints.c.id, checkpoints.c.blob).where(checkpoints.c.tenant == self._tenant)
        rows = connection.execute(mine).all()
        for id, blob in rows:
            try:
                self._blob(connection, blob)
            except CorruptionError as error:
                yield found(id, error.why)
        known = {blob for _, blob in rows}
        known |= set(connection.execute(select(uploads.c.subject).where(uploads.c.tenant == self._tenant)).scalars())
        stored = select(blobs.c.key).where(blobs.c.tenant == self._tenant).distinct()
        for key in connection.execute(stored).scalars():
            if key not in known:
                yield found(key, "bytes without a checkpoint")

    def _verify_snapshots(self, connection: Connection) -> Iterator[LedgerFinding]:
        found = partial(LedgerFinding, "snapshots")
        known = set(connection.execute(select(checkpoints.c.id).where(checkpoints.c.tenant == self._tenant)).scalars())
        rows = connection.execute(select(snapshots).where(snapshots.c.tenant == self._tenant)).mappings().all()
        for row in rows:
            count = self._count_at(connection, Point(row["branch"], row["position"]))
            if count != row["documents"]:
                yield found(row["id"], f"{count} documents are there, {row['documents']} are noted")
            if row["checkpoint"] is not None and row["checkpoint"] not in known:
                yield found(row["id"], "its checkpoint does not exist")
