"""Cached fast weights: rows that name a point, and their bytes in pieces of at most 4 MiB."""

from __future__ import annotations

import contextlib
import hashlib
import uuid
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, RowMapping, and_, delete, insert, select, update

from ttt_memory.errors import CorruptionError, InvalidInputError, TTTMemoryError
from ttt_memory.ledger.documents import epoch_conflict
from ttt_memory.ledger.passages import Passages
from ttt_memory.ledger.records import CheckpointRow, Point
from ttt_memory.ledger.schema import TRANSACTION_BYTES, blobs, checkpoints, snapshots, uploads
from ttt_memory.ledger.values import as_id, from_json, from_micros, keyed, now_micros, to_json


def checkpoint_row(row: RowMapping) -> CheckpointRow:
    """A stored row as a value."""
    values = dict(row)
    values.pop("tenant")
    values["backend"] = from_json(values["backend"])
    values["created_at"] = from_micros(values["created_at"])
    return CheckpointRow(**values)


class Checkpoints(Passages):
    """Checkpoints of every lineage. They are derived data: none of these changes the tenant's version."""

    def put_checkpoint(
        self,
        point: Point,
        *,
        data: bytes,
        digest: str,
        tokens: int,
        model_fingerprint: str,
        backend: Mapping[str, Any],
        segment: int | None = None,
        kind: str = "policy",
        expected_epoch: int | None = None,
    ) -> CheckpointRow:
        """Store a state that has read the lineage of `point` (of its last document only `segment` segments, if given).

        The bytes go in several short transactions and the row last. Raises ConflictError where the tenant's epoch is
        not `expected_epoch`: a state that was computed before a `forget` may hold what was forgotten.
        """
        id = uuid.uuid4().hex
        blob = self._blob_key(id, data)
        pieces = [data[start : start + TRANSACTION_BYTES] for start in range(0, len(data), TRANSACTION_BYTES)]
        if not pieces:
            raise InvalidInputError("A checkpoint cannot be empty.")
        with self._write() as (connection, tenant):
            self._check_epoch(tenant, expected_epoch)
            point = self._canonical(connection, point)
            self._begin_upload(connection, "blob", blob)
        try:
            for index, piece in enumerate(pieces):
                with self._write() as (connection, _):
                    connection.execute(insert(blobs).values(tenant=self._tenant, key=blob, index=index, data=piece))
            with self._write() as (connection, tenant):
                self._check_epoch(tenant, expected_epoch)
                self._end_upload(connection, "blob", blob)
                values = {
                    "tenant": self._tenant,
                    "id": id,
                    "branch": point.branch,
                    "position": point.position,
                    "segment": segment,
                    "tokens": tokens,
                    "digest": digest,
                    "model_fingerprint": model_fingerprint,
                    "backend": to_json(backend, "backend"),
                    "kind": kind,
                    "created_at": now_micros(),
                    "blob": blob,
                    "size": len(data),
                }
                connection.execute(insert(checkpoints).values(**values))
                this = (checkpoints.c.tenant == self._tenant, checkpoints.c.id == id)
                return checkpoint_row(connection.execute(select(checkpoints).where(*this)).mappings().one())
        except BaseException:
            with contextlib.suppress(TTTMemoryError):
                self._discard_blob(blob)
            raise

    @staticmethod
    def _check_epoch(tenant: RowMapping, expected: int | None) -> None:
        if expected is not None and tenant["epoch"] != expected:
            raise epoch_conflict(tenant["epoch"], expected)

    def _blob_key(self, checkpoint_id: str, data: bytes) -> str:
        return keyed(self.key, "blob", checkpoint_id.encode(), hashlib.sha256(data).digest()).hex()

    def checkpoints(self) -> list[CheckpointRow]:
        """Every checkpoint of the tenant, oldest position first."""
        query = select(checkpoints).where(checkpoints.c.tenant == self._tenant)
        with self._read() as connection:
            rows = [checkpoint_row(row) for row in connection.execute(query).mappings()]
        return sorted(rows, key=_progress)

    def best_checkpoint(self, point: Point, model_fingerprint: str) -> CheckpointRow | None:
        """The checkpoint of this model that has read most of the point's lineage and nothing else."""
        with self._read() as connection:
            point = self._canonical(connection, point)
            line = self._lineage(point)
            inside = and_(checkpoints.c.branch == line.c.branch, checkpoints.c.position <= line.c.upto)
            query = (
                select(checkpoints)
                .join_from(checkpoints, line, inside)
                .where(checkpoints.c.tenant == self._tenant, checkpoints.c.model_fingerprint == model_fingerprint)
                .order_by(checkpoints.c.position.desc())
            )
            rows = connection.execute(query).mappings()
            newest = rows.first()
            if newest is None:
                return None
            same = connection.execute(query.where(checkpoints.c.position == newest["position"])).mappings()
            return max((checkpoint_row(row) for row in same), key=_progress)

    def load_blob(self, key: str) -> bytes:
        """The bytes of a checkpoint by its `blob`. Raises CorruptionError where they are not what was written."""
        with self._read() as connection:
            return self._blob(connection, as_id(key))

    def _blob(self, connection: Connection, key: str) -> bytes:
        mine = (checkpoints.c.tenant == self._tenant, checkpoints.c.blob == key)
        owner = connection.execute(select(checkpoints.c.id, checkpoints.c.size).where(*mine)).one_or_none()
        query = select(blobs.c.index, blobs.c.data).where(blobs.c.tenant == self._tenant, blobs.c.key == key)
        rows = connection.execute(query.order_by(blobs.c.index)).all()
        data = b"".join(piece for _, piece in rows)
        if owner is None:
            raise _damaged(key, "no checkpoint has this address")
        if [index for index, _ in rows] != list(range(len(rows))) or len(data) != owner.size:
            raise _damaged(key, f"{len(data)} of {owner.size} bytes are there")
        if self._blob_key(owner.id, data) != key:
            raise _damaged(key, "the bytes do not have the address they are stored under")
        return data

    def drop_checkpoints(self, ids: Iterable[str]) -> int:
        """Delete these checkpoints with their bytes, and return how many there were. Snapshots lose the reference."""
        with self._write() as (connection, _):
            query = select(checkpoints.c.id, checkpoints.c.blob).where(
                checkpoints.c.tenant == self._tenant, checkpoints.c.id.in_([as_id(id) for id in ids])
            )
            return self._delete_checkpoints(connection, [tuple(row) for row in connection.execute(query)])

    def _delete_checkpoints(self, connection: Connection, doomed: list[tuple[str, str]]) -> int:
        for id, blob in doomed:
            connection.execute(delete(blobs).where(blobs.c.tenant == self._tenant, blobs.c.key == blob))
            connection.execute(delete(checkpoints).where(checkpoints.c.tenant == self._tenant, checkpoints.c.id == id))
            connection.execute(
                update(snapshots)
                .where(snapshots.c.tenant == self._tenant, snapshots.c.checkpoint == id)
                .values(checkpoint=None)
            )
        return len(doomed)

    def _discard_blob(self, key: str) -> None:
        """Remove the bytes of an unfinished checkpoint."""
        with self._write() as (connection, _):
            gone = connection.execute(
                delete(uploads).where(
                    uploads.c.tenant == self._tenant, uploads.c.kind == "blob", uploads.c.subject == key
                )
            )
            if gone.rowcount:
                connection.execute(delete(blobs).where(blobs.c.tenant == self._tenant, blobs.c.key == key))


def _progress(row: CheckpointRow) -> tuple[int, float, str]:
    return (row.position, float("inf") if row.segment is None else row.segment, row.created_at.isoformat())


def _damaged(key: str, why: str) -> CorruptionError:
    return CorruptionError(
        "A checkpoint's bytes are damaged.", why=why, fix="Drop the checkpoint; the ledger can be replayed.", blob=key
    )
