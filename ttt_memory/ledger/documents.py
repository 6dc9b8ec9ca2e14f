"""Reading documents: by id, by content, by place in a stream, in order of position; their text whole or in part."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, RowMapping, Select, func, select, update

from ttt_memory.errors import ConflictError, CorruptionError, DocumentNotFoundError, InvalidInputError
from ttt_memory.ledger.base import TenantBase
from ttt_memory.ledger.records import DocumentRow, LiveMetadata, Point
from ttt_memory.ledger.schema import CHUNK_CHARACTERS, chunks, documents
from ttt_memory.ledger.values import as_id, from_floats, from_json, from_micros, now_micros, to_floats


def document_row(row: RowMapping, *, created: bool = True) -> DocumentRow:
    """A stored row as a value."""
    return DocumentRow(
        id=row["id"],
        position=row["position"],
        branch=row["branch"],
        content_key=row["content_key"],
        live=row["live_key"] is not None,
        characters=row["characters"],
        size=row["size"],
        tokens=row["tokens"],
        learn=row["learn"],
        learned=row["learned_at"] is not None,
        losses=from_floats(row["losses"]),
        skipped=row["skipped"],
        metadata=from_json(row["metadata"]),
        observed_at=from_micros(row["observed_at"]),
        ingested_at=from_micros(row["ingested_at"]),
        stream=None if row["stream"] is None else row["stream"].decode(),
        sequence=row["sequence"],
        origin=row["origin"],
        created=created,
    )


class Documents(TenantBase):
    """Documents of the live lineage; of another point where `point` is given."""

    def document(self, id: str, *, detached: bool = False) -> DocumentRow:
        """The live document with this id (any committed one with `detached`). Raises DocumentNotFoundError."""
        with self._read() as connection:
            return self._document(connection, id, detached=detached)

    def _document(self, connection: Connection, id: str, *, detached: bool) -> DocumentRow:
        query = select(documents).where(documents.c.tenant == self._tenant, documents.c.id == as_id(id))
        kept = documents.c.position if detached else documents.c.live_key
        row = connection.execute(query.where(kept.is_not(None))).mappings().one_or_none()
        if row is None:
            raise DocumentNotFoundError(
                f"There is no document {id!r} in this memory.",
                fix="Give a whole id; `documents` lists them.",
                document_id=id,
            )
        return document_row(row)

    def documents(
        self, *, after_position: int = 0, limit: int | None = None, learn_only: bool = False, point: Point | None = None
    ) -> list[DocumentRow]:
        """Documents in order of position, those after `after_position`, at most `limit`."""
        query = self._documents_at(point, *documents.c).where(documents.c.position > after_position)
        if learn_only:
            query = query.where(documents.c.learn)
        return self._rows(query.order_by(documents.c.position), limit)

    def stream_documents(
        self, stream: str, *, before_position: int | None = None, limit: int | None = None, point: Point | None = None
    ) -> list[DocumentRow]:
        """The stream's documents before a position, newest first."""
        query = self._documents_at(point, *documents.c).where(documents.c.stream_key == self._stream_key(stream))
        if before_position is not None:
            query = query.where(documents.c.position < before_position)
        return self._rows(query.order_by(documents.c.position.desc()), limit)

    def _rows(self, query: Select[Any], limit: int | None) -> list[DocumentRow]:
        with self._read() as connection:
            return [document_row(row) for row in connection.execute(query.limit(limit)).mappings()]

    def find_document(self, content_key: bytes) -> DocumentRow | None:
        """The live document with this content key."""
        return next(
            iter(self._rows(self._documents_at(None, *documents.c).where(documents.c.live_key == content_key), 1)), None
        )

    def find_append(self, stream: str, sequence: int) -> DocumentRow | None:
        """The live document at this place of the stream."""
        query = self._documents_at(None, *documents.c).where(
            documents.c.stream_key == self._stream_key(stream), documents.c.sequence == sequence
        )
        return next(iter(self._rows(query, 1)), None)

    def next_sequence(self, stream: str) -> int:
        """One more than the largest live sequence number of the stream; 0 for a new one."""
        query = self._documents_at(None, func.max(documents.c.sequence))
        with self._read() as connection:
            last = connection.execute(query.where(documents.c.stream_key == self._stream_key(stream))).scalar_one()
        return 0 if last is None else int(last) + 1

    def live_metadata(self) -> list[LiveMetadata]:
        """What filters and ranking look at, of every live document in order of position."""
        columns = (
            documents.c.id,
            documents.c.metadata,
            documents.c.observed_at,
            documents.c.ingested_at,
            documents.c.stream,
            documents.c.sequence,
            documents.c.origin,
        )
        with self._read() as connection:
            rows = connection.execute(self._documents_at(None, *columns).order_by(documents.c.position))
            return [
                LiveMetadata(id, from_json(data), from_micros(seen), from_micros(at), stream and stream.decode(), *rest)
                for id, data, seen, at, stream, *rest in rows
            ]

    def text(self, id: str, *, detached: bool = False) -> str:
        """The document's text, verbatim. Raises DocumentNotFoundError, CorruptionError."""
        with self._read() as connection:
            row = self._document(connection, id, detached=detached)
            return self._text(connection, row, 0, row.characters)

    def text_range(self, id: str, start: int, end: int, *, detached: bool = False) -> str:
        """`text(id)[start:end]` for 0 <= start <= end <= characters, reading only the chunks concerned."""
        with self._read() as connection:
            row = self._document(connection, id, detached=detached)
            if not 0 <= start <= end <= row.characters:
                raise InvalidInputError(
                    f"[{start}:{end}] is outside the document.",
                    why=f"it has {row.characters} characters",
                    document_id=id,
                )
            return self._text(connection, row, start, end)

    def _text(self, connection: Connection, row: DocumentRow, start: int, end: int) -> str:
        if start == end:
            return ""
        first, last = start // CHUNK_CHARACTERS, (end - 1) // CHUNK_CHARACTERS
        query = select(chunks.c.data).where(
            chunks.c.tenant == self._tenant, chunks.c.document == row.id, chunks.c.index.between(first, last)
        )
        parts = [decode_chunk(data, row.id) for data in connection.execute(query.order_by(chunks.c.index)).scalars()]
        text = "".join(parts)[start - first * CHUNK_CHARACTERS : end - first * CHUNK_CHARACTERS]
        if len(parts) != last - first + 1 or len(text) != end - start:
            raise damaged(row.id, "a part of its text is missing")
        return text

    def record_learning(
        self,
        document_id: str,
        *,
        losses: Sequence[float],
        skipped: int = 0,
        complete: bool = True,
        expected_epoch: int | None = None,
    ) -> None:
        """Note that the fast weights have read a document: each mini-batch's mean loss in nats per token.

        Not `complete`: they have read its first segments, up to a checkpoint from which a crash resumes. Derived data:
        the tenant's version stays. Raises DocumentNotFoundError; ConflictError where the epoch moved on, so that a
        reader that was overtaken by `forget` cannot note what it saw.
        """
        with self._write() as (connection, tenant):
            if expected_epoch is not None and tenant["epoch"] != expected_epoch:
                raise epoch_conflict(tenant["epoch"], expected_epoch)
            values = {"losses": to_floats(losses), "skipped": skipped, "learned_at": now_micros() if complete else None}
            changed = connection.execute(
                update(documents)
                .where(documents.c.tenant == self._tenant, documents.c.id == as_id(document_id))
                .where(documents.c.position.is_not(None))
                .values(**values)
            )
            if changed.rowcount != 1:
                raise DocumentNotFoundError(
                    f"There is no document {document_id!r} in this memory.", document_id=document_id
                )


def decode_chunk(data: bytes, document_id: str) -> str:
    """A chunk's text; CorruptionError where the bytes are not UTF-8."""
    try:
        return bytes(data).decode()
    except UnicodeDecodeError as error:
        raise damaged(document_id, str(error)) from error


def damaged(document_id: str, why: str) -> CorruptionError:
    """The error for a document whose stored text is not what was written."""
    return CorruptionError(
        f"Document {document_id} is damaged.", why=why, fix="Restore the store from a backup.", document_id=document_id
    )


def epoch_conflict(epoch: int, expected: int) -> ConflictError:
    """The error for derived data that was computed before a forget, restore or rederive."""
    return ConflictError(
        "The memory was changed while this was computed.",
        why=f"its epoch is {epoch}, not {expected}",
        fix="Compute it again from the present ledger.",
        epoch=epoch,
        expected_epoch=expected,
    )
