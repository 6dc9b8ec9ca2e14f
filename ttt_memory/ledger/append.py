"""Appending: a document with its chunks, passages and postings becomes visible at once, however large it is.

Up to 4 MiB goes in one transaction. More goes in several, under a document without position that no query shows; the
last one takes the position and moves the head.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from ttt_memory.errors import ConflictError, InvalidDocumentError, InvalidInputError, TTTMemoryError
from ttt_memory.ledger import owners
from ttt_memory.ledger.documents import Documents, document_row
from ttt_memory.ledger.records import DocumentRow, NewDocument, NewPassage
from ttt_memory.ledger.schema import (
    CHUNK_CHARACTERS,
    TRANSACTION_BYTES,
    chunks,
    documents,
    passages,
    postings,
    tenants,
    uploads,
)
from ttt_memory.ledger.values import MAX_INTEGER, now_micros, term_bytes, to_bytes, to_json, to_micros

POSTING_BYTES = 40  # of a posting beside its term: keys, frequency, index entry


class StoredPassage(NamedTuple):
    """A passage as its rows hold it: terms as bytes."""

    ordinal: int
    start: int
    end: int
    terms: dict[bytes, int]
    embedding: bytes
    token_vectors: bytes | None


@dataclass
class Batch:
    """Rows for one transaction; `size` in bytes, about."""

    chunks: list[tuple[int, int, bytes]] = field(default_factory=list)
    passages: list[StoredPassage] = field(default_factory=list)
    size: int = 0


class Append(Documents):
    """Writing documents."""

    def append(
        self, new: NewDocument, passages: Sequence[NewPassage], *, expected_version: int | None = None
    ) -> DocumentRow:
        """Add a document at the head; it and its passages are visible when this returns, and not before.

        Where the same content is live already, its row is returned with `created=False` and nothing is written.
        Raises ConflictError where `expected_version` is not the tenant's, or where the place in the stream holds other
        content; InvalidInputError and InvalidDocumentError for values that cannot be kept; StoreUnavailableError.
        """
        fresh = self._fresh(new, passages)
        work = list(batches(new.text, stored(passages)))
        if len(work) > 1:
            return self._append_in_parts(new, fresh, work, expected_version)
        with self._write(expected_version) as (connection, tenant):
            existing = self._present(connection, new)
            if existing is not None:
                return existing
            connection.execute(insert(documents).values(**fresh))
            for batch in work:
                self._insert(connection, fresh["id"], batch)
            return self._publish(connection, tenant, fresh["id"])

    def _fresh(self, new: NewDocument, passages: Sequence[NewPassage]) -> dict[str, Any]:
        """The document's row, still without a position; every value checked."""
        if new.content_key != self.content_key(new.text, new.stream, new.sequence):
            raise InvalidInputError("The content key is not this text's.", fix="Take it from `content_key`.")
        if new.sequence is not None and not (new.stream is not None and 0 <= new.sequence <= MAX_INTEGER):
            raise InvalidDocumentError(
                "The sequence number cannot be kept.",
                why="it needs a stream and 0 <= sequence < 2**63",
                sequence=new.sequence,
            )
        self._check_passages(passages, len(new.text))
        now = now_micros()
        return {
            "tenant": self._tenant,
            "id": uuid.uuid4().hex,
            "content_key": new.content_key,
            "characters": len(new.text),
            "size": len(to_bytes(new.text)),
            "tokens": new.tokens,
            "learn": new.learn,
            "skipped": 0,
            "metadata": to_json(new.metadata),
            "observed_at": now if new.observed_at is None else to_micros(new.observed_at),
            "ingested_at": now,
            "stream": None if new.stream is None else to_bytes(new.stream, "stream"),
            "stream_key": None if new.stream is None else self._stream_key(new.stream),
            "sequence": new.sequence,
            "origin": new.origin,
        }

    @staticmethod
    def _check_passages(passages: Sequence[NewPassage], characters: int) -> None:
        for passage in passages:
            if not 0 <= passage.start <= passage.end <= characters or any(n < 1 for n in passage.terms.values()):
                raise InvalidInputError(
                    "A passage does not fit its document.", why=f"[{passage.start}:{passage.end}] of {characters}"
                )

    def _present(self, connection: Connection, new: NewDocument) -> DocumentRow | None:
        """The live document with this content; ConflictError where other content has its place in the stream."""
        live = self._documents_at(None, *documents.c)
        row = connection.execute(live.where(documents.c.live_key == new.content_key)).mappings().one_or_none()
        if row is not None:
            return document_row(row, created=False)
        if new.stream is None:
            return None
        place = live.where(documents.c.stream_key == self._stream_key(new.stream), documents.c.sequence == new.sequence)
        row = connection.execute(place).mappings().first()
        if row is not None:
            raise ConflictError(
                f"Place {new.sequence} of stream {new.stream!r} holds other content.",
                fix="Take the next sequence number, or forget the document that has this one.",
                document_id=row["id"],
                stream=new.stream,
                sequence=new.sequence,
            )
        return None

    def _append_in_parts(
        self, new: NewDocument, fresh: dict[str, Any], work: list[Batch], expected_version: int | None
    ) -> DocumentRow:
        id = fresh["id"]
        with self._write(expected_version) as (connection, _):
            existing = self._present(connection, new)
            if existing is not None:
                return existing
            connection.execute(insert(documents).values(**fresh))
            self._begin_upload(connection, "document", id)
        try:
            for batch in work:
                with self._write() as (connection, _):
                    self._insert(connection, id, batch)
            with self._write(expected_version) as (connection, tenant):
                existing = self._present(connection, new)
                if existing is None:
                    self._end_upload(connection, "document", id)
                    return self._publish(connection, tenant, id)
        except BaseException:
            with contextlib.suppress(TTTMemoryError):
                self._discard_document(id)
            raise
        self._discard_document(id)
        return existing

    def _publish(self, connection: Connection, tenant: RowMapping, id: str) -> DocumentRow:
        position = tenant["next_position"]
        this = (documents.c.tenant == self._tenant, documents.c.id == id)
        changed = connection.execute(
            update(documents)
            .where(*this, documents.c.position.is_(None))
            .values(branch=tenant["branch"], position=position, live_key=documents.c.content_key)
        )
        if changed.rowcount != 1:
            raise ConflictError("The upload was removed by another process before it ended.", document_id=id)
        self._change(connection, head_position=position, next_position=position + 1)
        return document_row(connection.execute(select(documents).where(*this)).mappings().one())

    def _insert(self, connection: Connection, id: str, batch: Batch) -> None:
        """Insert a batch's rows; passage ids are the tenant's next ones and are never used again."""
        if batch.chunks:
            rows: list[dict[str, Any]] = [
                {"tenant": self._tenant, "document": id, "index": index, "start_char": start, "data": data}
                for index, start, data in batch.chunks
            ]
            connection.execute(insert(chunks), rows)
        self._insert_passages(connection, id, batch.passages)

    def _insert_passages(self, connection: Connection, id: str, new: Sequence[StoredPassage]) -> None:
        if not new:
            return
        first = self._row(connection)["next_passage"]
        rows: list[dict[str, Any]] = []
        terms: list[dict[str, Any]] = []
        for passage_id, passage in enumerate(new, first):
            rows.append(
                {
                    "tenant": self._tenant,
                    "id": passage_id,
                    "document": id,
                    "ordinal": passage.ordinal,
                    "start_char": passage.start,
                    "end_char": passage.end,
                    "terms": sum(passage.terms.values()),
                    "embedding": passage.embedding,
                    "token_vectors": passage.token_vectors,
                }
            )
            terms += [
                {"tenant": self._tenant, "term": term, "passage": passage_id, "tf": tf}
                for term, tf in passage.terms.items()
            ]
        connection.execute(insert(passages), rows)
        if terms:
            terms.sort(key=lambda row: row["term"])
            connection.execute(insert(postings), terms)
        connection.execute(update(tenants).where(tenants.c.id == self._tenant).values(next_passage=first + len(new)))

    # Uploads

    def _begin_upload(self, connection: Connection, kind: str, subject: str) -> None:
        connection.execute(
            insert(uploads).values(
                tenant=self._tenant,
                kind=kind,
                subject=subject,
                owner=owners.this_process(),
                started_at=now_micros(),
            )
        )

    def _end_upload(self, connection: Connection, kind: str, subject: str) -> None:
        ended = connection.execute(
            delete(uploads).where(
                uploads.c.tenant == self._tenant, uploads.c.kind == kind, uploads.c.subject == subject
            )
        )
        if ended.rowcount != 1:
            raise ConflictError("The upload was removed by another process before it ended.", subject=subject)

    def _discard_document(self, id: str) -> None:
        """Remove an unfinished document, if it is still there and unfinished."""
        with self._write() as (connection, _):
            gone = connection.execute(
                delete(uploads).where(
                    uploads.c.tenant == self._tenant, uploads.c.kind == "document", uploads.c.subject == id
                )
            )
            if gone.rowcount:
                self._delete_documents(connection, [id])
                self._store.mark_residue(connection)

    def _delete_documents(self, connection: Connection, ids: Sequence[str]) -> None:
        """Delete documents with all that hangs on them."""
        for id in ids:
            self._delete_passages(connection, id)
            connection.execute(delete(chunks).where(chunks.c.tenant == self._tenant, chunks.c.document == id))
            connection.execute(delete(documents).where(documents.c.tenant == self._tenant, documents.c.id == id))

    def _delete_passages(self, connection: Connection, id: str) -> None:
        of_document = (passages.c.tenant == self._tenant, passages.c.document == id)
        connection.execute(
            delete(postings).where(
                postings.c.tenant == self._tenant, postings.c.passage.in_(select(passages.c.id).where(*of_document))
            )
        )
        connection.execute(delete(passages).where(*of_document))


def stored(new: Sequence[NewPassage]) -> list[StoredPassage]:
    """Passages as their rows will hold them, numbered in order."""
    return [
        StoredPassage(ordinal, p.start, p.end, _frequencies(p), p.embedding, p.token_vectors)
        for ordinal, p in enumerate(new)
    ]


def _frequencies(passage: NewPassage) -> dict[bytes, int]:
    total: dict[bytes, int] = {}
    for term, frequency in passage.terms.items():
        key = term_bytes(term)
        total[key] = total.get(key, 0) + frequency
    return total


def batches(text: str, items: Sequence[StoredPassage]) -> Iterator[Batch]:
    """A document's rows in batches of at most 4 MiB (more only where a single row is larger)."""
    batch = Batch()
    for index, start in enumerate(range(0, len(text), CHUNK_CHARACTERS)):
        data = to_bytes(text[start : start + CHUNK_CHARACTERS])
        if batch.size and batch.size + len(data) > TRANSACTION_BYTES:
            yield batch
            batch = Batch()
        batch.chunks.append((index, start, data))
        batch.size += len(data)
    for passage in items:
        size = len(passage.embedding) + len(passage.token_vectors or b"")
        size += sum(len(term) + POSTING_BYTES for term in passage.terms)
        if batch.size and batch.size + size > TRANSACTION_BYTES:
            yield batch
            batch = Batch()
        batch.passages.append(passage)
        batch.size += size
    yield batch
