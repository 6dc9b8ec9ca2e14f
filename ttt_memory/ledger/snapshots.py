"""Named points of the ledger."""

from __future__ import annotations

import uuid

from sqlalchemy import Connection, RowMapping, delete, insert, or_, select, update

from ttt_memory.errors import ConflictError, InvalidInputError, SnapshotNotFoundError
from ttt_memory.ledger.checkpoints import Checkpoints
from ttt_memory.ledger.records import Point, SnapshotRow
from ttt_memory.ledger.schema import snapshots
from ttt_memory.ledger.values import as_id, from_micros, keyed, now_micros, to_bytes


def snapshot_row(row: RowMapping) -> SnapshotRow:
    """A stored row as a value."""
    return SnapshotRow(
        id=row["id"],
        label=None if row["label"] is None else row["label"].decode(),
        branch=row["branch"],
        position=row["position"],
        digest=row["digest"],
        checkpoint=row["checkpoint"],
        documents=row["documents"],
        created_at=from_micros(row["created_at"]),
        rebuilt_from=row["rebuilt_from"],
    )


class Snapshots(Checkpoints):
    """Snapshots of every lineage."""

    def _label_key(self, label: str) -> bytes:
        return keyed(self.key, "label", to_bytes(label, "label"))

    def create_snapshot(
        self,
        label: str | None = None,
        *,
        point: Point | None = None,
        digest: str | None = None,
        checkpoint: str | None = None,
    ) -> SnapshotRow:
        """Name a point (the head where None). Raises ConflictError where the label is taken."""
        if label == "":
            raise InvalidInputError("A snapshot's label must not be empty.", fix="Leave it out, or give it a name.")
        with self._write() as (connection, tenant):
            key = None if label is None else self._label_key(label)
            if key is not None and self._find(connection, label_key=key) is not None:
                raise ConflictError(
                    f"A snapshot is labelled {label!r} already.",
                    fix="Choose another label or delete that one.",
                    label=label,
                )
            at = self._canonical(connection, point or Point(tenant["branch"], tenant["head_position"]))
            id = uuid.uuid4().hex
            connection.execute(
                insert(snapshots).values(
                    tenant=self._tenant,
                    id=id,
                    label=None if label is None else to_bytes(label, "label"),
                    label_key=key,
                    branch=at.branch,
                    position=at.position,
                    digest=digest,
                    checkpoint=checkpoint,
                    documents=self._count_at(connection, at),
                    created_at=now_micros(),
                )
            )
            return self._snapshot(connection, id)

    def snapshots(self) -> list[SnapshotRow]:
        """Every snapshot, oldest first."""
        query = select(snapshots).where(snapshots.c.tenant == self._tenant)
        with self._read() as connection:
            rows = connection.execute(query.order_by(snapshots.c.created_at, snapshots.c.id)).mappings()
            return [snapshot_row(row) for row in rows]

    def resolve_snapshot(self, name: str) -> SnapshotRow:
        """The snapshot with this id or label (an id is tried first). Raises SnapshotNotFoundError."""
        with self._read() as connection:
            return self._snapshot(connection, name)

    def update_snapshot(self, id: str, *, digest: str | None, checkpoint: str | None) -> SnapshotRow:
        """Note digest and checkpoint of a snapshot whose weights were replayed. Raises SnapshotNotFoundError."""
        with self._write() as (connection, _):
            connection.execute(
                update(snapshots)
                .where(snapshots.c.tenant == self._tenant, snapshots.c.id == as_id(id))
                .values(digest=digest, checkpoint=checkpoint)
            )
            return self._snapshot(connection, id)

    def delete_snapshot(self, name: str) -> SnapshotRow:
        """Delete the snapshot with this id or label and return it. Raises SnapshotNotFoundError."""
        with self._write() as (connection, _):
            row = self._snapshot(connection, name)
            connection.execute(delete(snapshots).where(snapshots.c.tenant == self._tenant, snapshots.c.id == row.id))
            return row

    def _find(self, connection: Connection, *, id: str = "", label_key: bytes = b"") -> RowMapping | None:
        query = select(snapshots).where(
            snapshots.c.tenant == self._tenant, or_(snapshots.c.id == id, snapshots.c.label_key == label_key)
        )
        rows = connection.execute(query).mappings().all()
        return min(rows, key=lambda row: row["id"] != id, default=None)

    def _snapshot(self, connection: Connection, name: str) -> SnapshotRow:
        row = self._find(connection, id=as_id(name), label_key=self._label_key(name))
        if row is None:
            raise SnapshotNotFoundError(
                f"There is no snapshot {name!r} in this memory.",
                fix="Give a label or an id; `snapshots` lists them.",
                snapshot=name,
            )
        return snapshot_row(row)
