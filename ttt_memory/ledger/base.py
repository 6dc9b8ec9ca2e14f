"""What every part of a tenant's ledger stands on: the bound tenant, its transactions, its lineages."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from sqlalchemy import (
    CTE,
    BigInteger,
    ColumnElement,
    Connection,
    RowMapping,
    Select,
    and_,
    case,
    func,
    literal,
    select,
    update,
)

from ttt_memory.errors import ConflictError, InvalidInputError, TenantNotFoundError
from ttt_memory.ledger.engine import Store
from ttt_memory.ledger.records import Head, Point
from ttt_memory.ledger.schema import branches, documents, tenants
from ttt_memory.ledger.values import from_json, keyed, to_bytes

ROOT_BRANCH = 1
BATCH = 500


class TenantBase:
    """One tenant of one store. The tenant is fixed here and is part of every statement of the subclasses."""

    def __init__(self, store: Store, *, tenant: int, name: str, key: bytes) -> None:
        self._store = store
        self._tenant = tenant
        self.name = name
        self.key = key

    # Transactions

    @contextlib.contextmanager
    def _read(self) -> Iterator[Connection]:
        with self._store.read() as connection:
            yield connection

    @contextlib.contextmanager
    def _write(self, expected_version: int | None = None) -> Iterator[tuple[Connection, RowMapping]]:
        """A write transaction that holds the tenant's row: the only writer of this tenant until it ends."""
        with self._store.write() as connection:
            row = self._row(connection, lock=True)
            if expected_version is not None and row["version"] != expected_version:
                raise ConflictError(
                    f"Tenant {self.name!r} was changed by another writer.",
                    why=f"its version is {row['version']}, not {expected_version}",
                    fix="Read the head again and retry.",
                    version=row["version"],
                    expected_version=expected_version,
                )
            yield connection, row

    def _row(self, connection: Connection, *, lock: bool = False) -> RowMapping:
        query = select(tenants).where(tenants.c.id == self._tenant)
        if lock:
            query = query.with_for_update()
        row = connection.execute(query).mappings().one_or_none()
        if row is None:
            raise TenantNotFoundError(f"Tenant {self.name!r} no longer exists.", tenant=self.name)
        return row

    def _change(self, connection: Connection, **values: Any) -> None:
        """Update the tenant's row; every call counts as one new version."""
        connection.execute(
            update(tenants).where(tenants.c.id == self._tenant).values(version=tenants.c.version + 1, **values)
        )

    def head(self) -> Head:
        """Where the tenant stands. Raises TenantNotFoundError where it was dropped."""
        with self._read() as connection:
            return self._head(self._row(connection))

    @staticmethod
    def _head(row: RowMapping) -> Head:
        return Head(
            version=row["version"],
            epoch=row["epoch"],
            branch=row["branch"],
            position=row["head_position"],
            relearning=row["relearning"],
            model=None if row["model"] is None else from_json(row["model"]),
            embedder=row["embedder"],
        )

    # Keys

    def content_key(self, text: str, stream: str | None = None, sequence: int | None = None) -> bytes:
        """The identity of a document's content, or of an append: HMAC under the tenant's key, 32 bytes."""
        data = to_bytes(text)
        if stream is None:
            return keyed(self.key, "document", data)
        if sequence is None:
            raise InvalidInputError("An append needs its sequence number.", stream=stream)
        return keyed(self.key, "append", to_bytes(stream, "stream"), str(sequence).encode(), data)

    def _stream_key(self, stream: str) -> bytes:
        return keyed(self.key, "stream", to_bytes(stream, "stream"))

    # Lineages

    def _lineage(self, point: Point) -> CTE:
        """`(branch, upto)`: a document belongs to the point where its branch is listed and its position <= upto."""
        line = (
            select(literal(point.branch, BigInteger).label("branch"), literal(point.position, BigInteger).label("upto"))
            .select_from(tenants)
            .where(tenants.c.id == self._tenant)
            .cte("line", recursive=True)
        )
        upto = case((branches.c.fork_position < line.c.upto, branches.c.fork_position), else_=line.c.upto)
        parents = (
            select(branches.c.parent, upto)
            .join_from(line, branches, branches.c.branch == line.c.branch)
            .where(branches.c.tenant == self._tenant, branches.c.parent.is_not(None))
        )
        return line.union_all(parents)

    def _documents_at(self, point: Point | None, *columns: ColumnElement[Any]) -> Select[Any]:
        """Committed documents of a point's lineage; of the live one where the point is None."""
        if point is None:
            query = select(*columns).where(documents.c.live_key.is_not(None))
        else:
            line = self._lineage(point)
            inside = and_(documents.c.branch == line.c.branch, documents.c.position <= line.c.upto)
            query = select(*columns).join_from(documents, line, inside).where(documents.c.position.is_not(None))
        return query.where(documents.c.tenant == self._tenant)

    def _canonical(self, connection: Connection, point: Point) -> Point:
        """The same moment on the branch that its newest document was written to; InvalidInputError if unknown."""
        row = self._row(connection)
        known = {
            branch: (parent, fork)
            for branch, parent, fork in connection.execute(
                select(branches.c.branch, branches.c.parent, branches.c.fork_position).where(
                    branches.c.tenant == self._tenant
                )
            )
        }
        branch, position = point
        if branch not in known or not 0 <= position < row["next_position"]:
            raise InvalidInputError(f"There is no point {tuple(point)} in tenant {self.name!r}.", point=tuple(point))
        while known[branch][0] is not None and position <= known[branch][1]:
            branch = known[branch][0]
        return Point(branch, position)

    def _count_at(self, connection: Connection, point: Point) -> int:
        return int(connection.execute(self._documents_at(point, func.count())).scalar_one())
