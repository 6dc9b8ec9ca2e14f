"""What changes the past: restore, forget, rederive, collecting detached documents; pins and counts."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import Connection, and_, delete, func, insert, select, update

from ttt_memory.errors import ConflictError
from ttt_memory.ledger.documents import epoch_conflict
from ttt_memory.ledger.records import Counts, ForgetResult, Head, Point
from ttt_memory.ledger.schema import (
    blobs,
    branches,
    checkpoints,
    documents,
    postings,
    snapshots,
    tenants,
    tombstones,
)
from ttt_memory.ledger.snapshots import Snapshots
from ttt_memory.ledger.values import from_json, keyed, now_micros, to_json


class History(Snapshots):
    """Verbs that move the head or remove documents. Each one is a single transaction."""

    # Pins

    def pin_model(self, pin: Mapping[str, Any]) -> None:
        """Bind the memory to a model. Raises ConflictError where another one is pinned (see `begin_rederive`)."""
        text = to_json(pin, "model pin")
        with self._write() as (connection, tenant):
            if tenant["model"] is None:
                self._change(connection, model=text)
            elif from_json(tenant["model"]) != json.loads(text):
                raise ConflictError("The memory is bound to another model.", fix="Use `rederive` to change it.")

    def pin_embedder(self, embedder: str, *, replace: bool = False) -> None:
        """Bind the memory to an embedder. Raises ConflictError where another one is pinned, unless `replace`."""
        with self._write() as (connection, tenant):
            if tenant["embedder"] == embedder:
                return
            if tenant["embedder"] is not None and not replace:
                raise ConflictError("The memory is bound to another embedder.", embedder=tenant["embedder"])
            self._change(connection, embedder=embedder)

    # Restore

    def restore(self, point: Point, *, expected_version: int | None = None) -> Head:
        """Move the head to any point of any branch: a new branch begins there. Later documents become detached.

        Raises ConflictError where `expected_version` is not the tenant's, InvalidInputError for an unknown point.
        """
        with self._write(expected_version) as (connection, tenant):
            at = self._canonical(connection, point)
            newest = connection.execute(
                select(func.max(branches.c.branch)).where(branches.c.tenant == self._tenant)
            ).scalar_one()
            connection.execute(
                insert(branches).values(
                    tenant=self._tenant, branch=newest + 1, parent=at.branch, fork_position=at.position
                )
            )
            inside = documents.c.id.in_(self._documents_at(at, documents.c.id))
            this = documents.c.tenant == self._tenant
            connection.execute(
                update(documents)
                .where(this, documents.c.live_key.is_not(None), ~inside)
                .values(live_key=None, detached_at=now_micros())
            )
            connection.execute(
                update(documents)
                .where(this, documents.c.live_key.is_(None), inside)
                .values(live_key=documents.c.content_key, detached_at=None)
            )
            self._change(connection, branch=newest + 1, head_position=at.position, epoch=tenant["epoch"] + 1)
            return self._head(self._row(connection))

    # Forget

    def forget(self, ids: Sequence[str], *, expected_version: int | None = None) -> ForgetResult:
        """Erase documents, live or detached, with everything derived from them, in one transaction.

        Learned ones also take along every checkpoint that read them, the learning results of every document read after
        them, and the digests of snapshots that held them; `epoch` changes, and where one was live, `relearning` is set.
        Raises DocumentNotFoundError (nothing is removed then) and ConflictError.
        """
        wanted = tuple(dict.fromkeys(ids))
        with self._write(expected_version) as (connection, tenant):
            rows = [self._document(connection, id, detached=True) for id in wanted]
            if not rows:
                return ForgetResult((), None, 0, (), True)
            now = now_micros()
            read = self._reached(connection, [row.point for row in rows if row.learn])
            dropped = self._drop_reached(connection, read)
            self._unlearn(connection, read)
            held = self._held(connection, self._reached(connection, [row.point for row in rows]))
            self._delete_documents(connection, wanted)
            rebuilt = tuple(self._rebuild_snapshot(connection, id, read, now) for id in held)
            for row in rows:
                connection.execute(
                    insert(tombstones).values(
                        tenant=self._tenant,
                        id=self._tombstone(row.id),
                        content_key=row.content_key,
                        forgotten_at=now,
                    )
                )
            earliest = min((row.position for row in rows if row.live and row.learn), default=None)
            changes: dict[str, Any] = {"epoch": tenant["epoch"] + 1} if read else {}
            if earliest is not None:
                changes["relearning"] = True
            self._change(connection, **changes)
            self._store.mark_residue(connection)
        return ForgetResult(wanted, earliest, dropped, rebuilt, self.purge_residue())

    def forgotten(self, document_id: str) -> bool:
        """Whether a document with this id was forgotten here."""
        query = select(func.count()).where(
            tombstones.c.tenant == self._tenant, tombstones.c.id == self._tombstone(document_id)
        )
        with self._read() as connection:
            return bool(connection.execute(query).scalar_one())

    def _tombstone(self, document_id: str) -> bytes:
        return keyed(self.key, "tombstone", document_id.encode("utf-8", "surrogatepass"))

    def _reached(self, connection: Connection, points: Iterable[Point]) -> dict[int, int]:
        """For every branch whose lineage holds one of these documents: the position of the first one it holds."""
        first: dict[int, int] = {}
        for branch, position in points:
            first[branch] = min(position, first.get(branch, position))
        if not first:
            return first
        query = select(branches.c.branch, branches.c.parent, branches.c.fork_position).where(
            branches.c.tenant == self._tenant, branches.c.parent.is_not(None)
        )
        for branch, parent, fork in connection.execute(query.order_by(branches.c.branch)):
            inherited = first.get(parent)
            if inherited is not None and inherited <= fork:
                first[branch] = min(inherited, first.get(branch, inherited))
        return first

    def _drop_reached(self, connection: Connection, first: Mapping[int, int]) -> int:
        query = select(checkpoints.c.id, checkpoints.c.blob, checkpoints.c.branch, checkpoints.c.position).where(
            checkpoints.c.tenant == self._tenant
        )
        rows = connection.execute(query).all()
        doomed = [(id, blob) for id, blob, branch, position in rows if position >= first.get(branch, position + 1)]
        return self._delete_checkpoints(connection, doomed)

    def _unlearn(self, connection: Connection, first: Mapping[int, int]) -> None:
        for branch, position in first.items():
            connection.execute(
                update(documents)
                .where(documents.c.tenant == self._tenant, documents.c.branch == branch)
                .where(documents.c.position >= position)
                .values(learned_at=None, losses=None, skipped=0)
            )

    def _held(self, connection: Connection, first: Mapping[int, int]) -> list[str]:
        query = select(snapshots.c.id, snapshots.c.branch, snapshots.c.position).where(
            snapshots.c.tenant == self._tenant
        )
        rows = connection.execute(query.order_by(snapshots.c.created_at, snapshots.c.id)).all()
        return [id for id, branch, position in rows if position >= first.get(branch, position + 1)]

    def _rebuild_snapshot(self, connection: Connection, id: str, read: Mapping[int, int], now: int) -> str:
        """Replace a snapshot by one of what is left; its digest stays only where nothing learned was taken out."""
        this = (snapshots.c.tenant == self._tenant, snapshots.c.id == id)
        values = dict(connection.execute(select(snapshots).where(*this)).mappings().one())
        connection.execute(delete(snapshots).where(*this))
        if values["position"] >= read.get(values["branch"], values["position"] + 1):
            values |= {"digest": None, "checkpoint": None}
        documents_left = self._count_at(connection, Point(values["branch"], values["position"]))
        values |= {"id": uuid.uuid4().hex, "rebuilt_from": id, "documents": documents_left, "created_at": now}
        connection.execute(insert(snapshots).values(**values))
        return str(values["id"])

    def purge_residue(self) -> bool:
        """Remove what SQLite's file and log still hold of deleted rows, by rewriting the file (about 100 MB a second).

        Called by `forget`, `gc`, `drop` and on opening. False where it was not possible now, because another process is
        busy or the disk is full; it is due until it succeeds. Other databases clean up by their own rules (PostgreSQL:
        VACUUM).
        """
        return self._store.purge_residue()

    # Relearning

    def begin_rederive(self, pin: Mapping[str, Any], *, expected_version: int | None = None) -> Head:
        """Change the model: every checkpoint, digest and learning result goes, `relearning` is set, `epoch` changes."""
        with self._write(expected_version) as (connection, tenant):
            every = select(branches.c.branch).where(branches.c.tenant == self._tenant)
            self._drop_reached(connection, dict.fromkeys(connection.execute(every).scalars(), 0))
            connection.execute(
                update(snapshots).where(snapshots.c.tenant == self._tenant).values(digest=None, checkpoint=None)
            )
            connection.execute(
                update(documents)
                .where(documents.c.tenant == self._tenant)
                .values(learned_at=None, losses=None, skipped=0)
            )
            self._change(connection, model=to_json(pin, "model pin"), relearning=True, epoch=tenant["epoch"] + 1)
            return self._head(self._row(connection))

    def finish_relearning(self, epoch: int) -> Head:
        """The weights are clean again. Raises ConflictError where the epoch moved on meanwhile."""
        with self._write() as (connection, tenant):
            if tenant["epoch"] != epoch:
                raise epoch_conflict(tenant["epoch"], epoch)
            connection.execute(update(tenants).where(tenants.c.id == self._tenant).values(relearning=False))
            return self._head(self._row(connection))

    # Housekeeping

    def gc(self, grace: timedelta) -> tuple[str, ...]:
        """Erase documents that have been detached for longer than `grace` and that no snapshot reaches; their ids."""
        with self._write() as (connection, _):
            oldest = now_micros() - grace // timedelta(microseconds=1)
            query = select(documents.c.id, documents.c.branch, documents.c.position).where(
                documents.c.tenant == self._tenant, documents.c.detached_at <= oldest
            )
            candidates = {row.id: Point(row.branch, row.position) for row in connection.execute(query)}
            named = select(snapshots.c.branch, snapshots.c.position).where(snapshots.c.tenant == self._tenant)
            for branch, position in connection.execute(named.distinct()).all():
                if not candidates:
                    break
                for id in connection.execute(self._documents_at(Point(branch, position), documents.c.id)).scalars():
                    candidates.pop(id, None)
            if not candidates:
                return ()
            self._drop_reached(connection, self._reached(connection, candidates.values()))
            self._delete_documents(connection, list(candidates))
            self._change(connection)
            self._store.mark_residue(connection)
        self.purge_residue()
        return tuple(candidates)

    def counts(self) -> Counts:
        """Sizes of the tenant."""
        live = and_(documents.c.tenant == self._tenant, documents.c.live_key.is_not(None))
        with self._read() as connection:

            def one(expression: Any, *where: Any) -> int:
                return int(connection.execute(select(expression).where(*where)).scalar_one() or 0)

            return Counts(
                documents=one(func.count(), live),
                detached=one(func.count(), documents.c.tenant == self._tenant, documents.c.detached_at.is_not(None)),
                passages=int(connection.execute(self._live_passages(func.count())).scalar_one()),
                postings=one(func.count(), postings.c.tenant == self._tenant),
                snapshots=one(func.count(), snapshots.c.tenant == self._tenant),
                checkpoints=one(func.count(), checkpoints.c.tenant == self._tenant),
                tokens=one(func.sum(documents.c.tokens), live),
                learned_tokens=one(func.sum(documents.c.tokens), live, documents.c.learned_at.is_not(None)),
                text_bytes=one(func.sum(documents.c.size), live),
                blob_bytes=one(func.sum(func.length(blobs.c.data)), blobs.c.tenant == self._tenant),
                tombstones=one(func.count(), tombstones.c.tenant == self._tenant),
            )
