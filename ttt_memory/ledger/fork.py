"""Whole tenants at once. A fork is a copy: no row, blob or key is shared with the tenant it comes from."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, delete, func, insert, select

from ttt_memory.errors import ConflictError, TTTMemoryError
from ttt_memory.ledger import registry
from ttt_memory.ledger.append import Batch, StoredPassage, batches
from ttt_memory.ledger.base import ROOT_BRANCH
from ttt_memory.ledger.history import History
from ttt_memory.ledger.records import DocumentRow, Point
from ttt_memory.ledger.schema import (
    TENANT_TABLES,
    TRANSACTION_BYTES,
    documents,
    passages,
    postings,
    snapshots,
    tenants,
)

if TYPE_CHECKING:
    from ttt_memory.ledger.ledger import Ledger
    from ttt_memory.ledger.tenant import TenantLedger


class Fork(History):
    """Copying a tenant, importing one under a name, and dropping one."""

    def copy_to(self, name: str, *, point: Point | None = None, ledger: Ledger | None = None) -> TenantLedger:
        """Copy a point's lineage (the head's where None) into the new tenant `name`, of another ledger if given.

        Texts, passages, postings, learning results and pins are copied, at the same positions on a single branch, under
        new document and passage ids and a new key; checkpoints and snapshots are not. Short transactions; nobody can
        open the copy before it is whole. Raises ConflictError where the name is taken, or where a document was
        forgotten meanwhile; InvalidInputError for an unknown point.
        """
        from ttt_memory.ledger.tenant import TenantLedger

        head = self.head()
        with self._read() as connection:
            at = self._canonical(connection, point or head.point)
        rows = self.documents(point=at)
        store = self._store if ledger is None else ledger.store
        target = TenantLedger.bind(store, registry.create(store, name, ready=False))
        try:
            target._fill(self._copies(rows, target))
            self._finish_copy(target, at, len(rows))
        except BaseException:
            with contextlib.suppress(TTTMemoryError):
                target.drop()
            raise
        return target

    def _finish_copy(self, target: Fork, at: Point, copied: int) -> None:
        """Make the copy visible, provided that nothing of what was copied has been forgotten meanwhile."""
        with target._write() as (connection, _):
            same = target._store is self._store
            with contextlib.nullcontext(connection) if same else self._read() as source:
                pins = self._row(source, lock=same)
                if self._count_at(source, at) != copied:
                    raise _removed(self.name)
            target._end_upload(connection, "fork", "")
            target._change(
                connection,
                head_position=at.position,
                next_position=at.position + 1,
                model=pins["model"],
                embedder=pins["embedder"],
                ready=True,
            )

    def _copies(self, rows: list[DocumentRow], target: Fork) -> Iterator[tuple[dict[str, Any] | None, str, Batch]]:
        """Row values (with a document's first batch), document id, batch."""
        for row in rows:
            with self._read() as connection:
                stored = connection.execute(
                    select(documents).where(documents.c.tenant == self._tenant, documents.c.id == row.id)
                ).mappings()
                values: dict[str, Any] | None = dict(stored.one_or_none() or {})
                if not values:
                    raise _removed(self.name)
                text = self._text(connection, row, 0, row.characters)
                items = self._stored_passages(connection, row.id)
            id, key = uuid.uuid4().hex, target.content_key(text, row.stream, row.sequence)
            stream_key = None if row.stream is None else target._stream_key(row.stream)
            values |= {"tenant": target._tenant, "id": id, "branch": ROOT_BRANCH, "stream_key": stream_key}
            values |= {"content_key": key, "live_key": key, "detached_at": None}
            for batch in batches(text, items):
                yield values, id, batch
                values = None

    def _stored_passages(self, connection: Connection, document_id: str) -> list[StoredPassage]:
        mine = (passages.c.tenant == self._tenant, passages.c.document == document_id)
        rows = connection.execute(select(passages).where(*mine).order_by(passages.c.ordinal)).all()
        terms: dict[int, dict[bytes, int]] = {row.id: {} for row in rows}
        # A range, not a list or a join: SQLite would answer those by scanning all of the tenant's postings.
        query = select(postings.c.passage, postings.c.term, postings.c.tf).where(
            postings.c.tenant == self._tenant, postings.c.passage.between(min(terms, default=0), max(terms, default=0))
        )
        for passage, term, tf in connection.execute(query):
            if passage in terms:
                terms[passage][bytes(term)] = tf
        return [
            StoredPassage(row.ordinal, row.start_char, row.end_char, terms[row.id], row.embedding, row.token_vectors)
            for row in rows
        ]

    def _fill(self, copies: Iterator[tuple[dict[str, Any] | None, str, Batch]]) -> None:
        """Insert copies, several small documents to a transaction."""
        waiting: list[tuple[dict[str, Any] | None, str, Batch]] = []
        size = 0
        for copy in copies:
            if waiting and size + copy[2].size > TRANSACTION_BYTES:
                self._flush(waiting)
                waiting, size = [], 0
            waiting.append(copy)
            size += copy[2].size
        self._flush(waiting)

    def _flush(self, waiting: list[tuple[dict[str, Any] | None, str, Batch]]) -> None:
        with self._write() as (connection, _):
            for values, id, batch in waiting:
                if values is not None:
                    connection.execute(insert(documents).values(**values))
                self._insert(connection, id, batch)

    def check_replaceable(self) -> None:
        """Raise ConflictError unless an import may take this tenant's place: it has neither documents nor snapshots."""
        with self._read() as connection:
            self._check_replaceable(connection)

    def _check_replaceable(self, connection: Connection) -> None:
        held = (documents, snapshots)
        counts = [
            connection.execute(select(func.count()).where(table.c.tenant == self._tenant)).scalar_one()
            for table in held
        ]
        if any(counts) or not self._row(connection)["ready"]:
            raise ConflictError(
                f"Tenant {self.name!r} has documents or snapshots already.",
                fix="Import under another name.",
                tenant=self.name,
            )

    def end_import(self, name: str) -> None:
        """Give a tenant from `Ledger.begin_import` its name, in one transaction; until then nobody can open it.

        A tenant of that name which has nothing gives way. Raises ConflictError where it has something by now.
        """
        with self._write() as (connection, _):
            found = registry.find_in(connection, name)
            if found is not None:
                other = type(self)(self._store, tenant=found.id, name=name, key=found.key)
                other._row(connection, lock=True)
                other._check_replaceable(connection)
                other._erase(connection)
            self._end_upload(connection, "fork", "")
            self._change(connection, ready=True, **registry.name_columns(name))
        self.name = name

    def discard(self, kind: str, subject: str) -> None:
        """Remove one unfinished piece of work whose owner is gone, if it is still unfinished."""
        if kind == "document":
            self._discard_document(subject)
        elif kind == "blob":
            self._discard_blob(subject)
        else:
            self.drop()

    def drop(self) -> None:
        """Erase the tenant and everything it has. The handle is of no more use."""
        with self._write() as (connection, _):
            self._erase(connection)
            self._store.mark_residue(connection)
        self.purge_residue()

    def _erase(self, connection: Connection) -> None:
        for table in TENANT_TABLES:
            connection.execute(delete(table).where(table.c.tenant == self._tenant))
        connection.execute(delete(tenants).where(tenants.c.id == self._tenant))


def _removed(name: str) -> ConflictError:
    return ConflictError(f"A document of {name!r} was removed while it was copied.", fix="Fork again.", tenant=name)
