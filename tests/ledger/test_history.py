"""Restore, forget, gc, snapshots, checkpoints, rederive."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import delete, update

from tests.ledger.helpers import add, checkpoint, texts
from ttt_memory.errors import (
    ConflictError,
    CorruptionError,
    DocumentNotFoundError,
    InvalidInputError,
    SnapshotNotFoundError,
)
from ttt_memory.ledger import Point, TenantLedger
from ttt_memory.ledger.schema import TRANSACTION_BYTES, blobs


def test_restore_back_and_forward(tenant: TenantLedger) -> None:
    add(tenant, "a")
    early = tenant.create_snapshot("early")
    add(tenant, "b")
    late = tenant.create_snapshot("late")
    head = tenant.restore(early.point)
    assert texts(tenant) == ["a"]
    assert tenant.counts().detached == 1
    assert head.epoch == 1
    c = add(tenant, "c")
    assert c.position == 3
    other = tenant.create_snapshot()
    assert not add(tenant, "a").created
    assert add(tenant, "b").created, "a detached document's content can be ingested anew"
    tenant.restore(late.point)
    assert texts(tenant) == ["a", "b"]
    tenant.restore(other.point)
    assert texts(tenant) == ["a", "c"]
    assert texts(tenant, late.point) == ["a", "b"]
    with pytest.raises(DocumentNotFoundError):
        tenant.document(tenant.documents(point=late.point)[1].id)
    assert tenant.verify() == []


def test_restore_of_restore(tenant: TenantLedger) -> None:
    """A chain of many branches is one lineage, and a position of an ancestor is the same point everywhere."""
    for number in range(60):
        add(tenant, str(number), passages=[])
        tenant.restore(tenant.head().point)
    assert texts(tenant) == [str(number) for number in range(60)]
    assert tenant.create_snapshot(point=Point(tenant.head().branch, 7)).point == Point(7, 7)
    tenant.restore(Point(tenant.head().branch, 7))
    assert texts(tenant) == [str(number) for number in range(7)]
    assert tenant.verify() == []


def test_restore_conflicts_and_unknown_points(tenant: TenantLedger) -> None:
    add(tenant, "a")
    head = tenant.head()
    for point in [Point(9, 1), Point(1, 2), Point(1, -1)]:
        with pytest.raises(InvalidInputError):
            tenant.restore(point)
    with pytest.raises(ConflictError):
        tenant.restore(head.point, expected_version=0)
    assert tenant.head() == head
    tenant.restore(Point(1, 0))
    assert texts(tenant) == []


def test_snapshots(tenant: TenantLedger) -> None:
    add(tenant, "a")
    one = tenant.create_snapshot("v1\0é", digest="d")
    two = tenant.create_snapshot()
    assert (one.documents, one.label, one.digest) == (1, "v1\0é", "d")
    assert tenant.snapshots() == [one, two]
    assert tenant.resolve_snapshot("v1\0é") == tenant.resolve_snapshot(one.id) == one
    with pytest.raises(ConflictError):
        tenant.create_snapshot("v1\0é")
    for name in ["", "nothing", two.id[:-1], "\0"]:
        with pytest.raises(SnapshotNotFoundError):
            tenant.resolve_snapshot(name)
    with pytest.raises(InvalidInputError):
        tenant.create_snapshot("")
    saved = checkpoint(tenant, one.point)
    assert tenant.update_snapshot(two.id, digest="e", checkpoint=saved.id).digest == "e"
    tenant.drop_checkpoints([saved.id])
    assert tenant.resolve_snapshot(two.id).checkpoint is None
    assert tenant.delete_snapshot("v1\0é") == one
    assert tenant.create_snapshot("v1\0é").id != one.id
    assert tenant.head().version == 1


def test_the_best_checkpoint_is_inside_the_lineage(tenant: TenantLedger) -> None:
    for text in "abcd":
        add(tenant, text)
    one, three = checkpoint(tenant, Point(1, 1)), checkpoint(tenant, Point(1, 3))
    part, more = checkpoint(tenant, Point(1, 4), segment=1), checkpoint(tenant, Point(1, 4), segment=2)
    checkpoint(tenant, Point(1, 4), model_fingerprint="another")

    def best(point: Point) -> str | None:
        found = tenant.best_checkpoint(point, "m")
        return None if found is None else found.id

    assert best(Point(1, 4)) == more.id
    assert best(Point(1, 3)) == three.id
    assert best(Point(1, 2)) == one.id
    assert best(Point(1, 0)) is None
    whole = checkpoint(tenant, Point(1, 4))
    assert best(Point(1, 4)) == whole.id
    head = tenant.restore(Point(1, 3))
    add(tenant, "e")
    assert best(tenant.head().point) == three.id
    again = checkpoint(tenant, Point(head.branch, 2))
    assert again.point == Point(1, 2), "a point is stored on the branch that its documents were written to"
    assert best(Point(1, 2)) == again.id
    assert tenant.drop_checkpoints([three.id, part.id, "nothing"]) == 2
    assert best(tenant.head().point) == again.id
    assert tenant.best_checkpoint(tenant.head().point, "unknown") is None


def test_blobs_come_back_or_say_so(tenant: TenantLedger) -> None:
    data = bytes(range(256)) * (TRANSACTION_BYTES // 256 + 100)
    saved = checkpoint(tenant, tenant.head().point, data)
    assert tenant.load_blob(saved.blob) == data
    assert checkpoint(tenant, tenant.head().point, data).blob != saved.blob
    with tenant._store.write() as connection:
        connection.execute(update(blobs).where(blobs.c.key == saved.blob, blobs.c.index == 1).values(data=b"short"))
    with pytest.raises(CorruptionError):
        tenant.load_blob(saved.blob)
    with tenant._store.write() as connection:
        piece = data[TRANSACTION_BYTES:-1] + b"\0"
        connection.execute(update(blobs).where(blobs.c.key == saved.blob, blobs.c.index == 1).values(data=piece))
    with pytest.raises(CorruptionError):
        tenant.load_blob(saved.blob)
    with tenant._store.write() as connection:
        connection.execute(delete(blobs).where(blobs.c.key == saved.blob, blobs.c.index == 0))
    with pytest.raises(CorruptionError):
        tenant.load_blob(saved.blob)
    with pytest.raises(CorruptionError):
        tenant.load_blob("0" * 64)
    tenant.drop_checkpoints([saved.id])
    assert tenant.verify() == []


def test_a_state_computed_before_a_forget_is_not_stored(tenant: TenantLedger) -> None:
    row = add(tenant, "secret")
    head = tenant.head()
    tenant.forget([row.id])
    with pytest.raises(ConflictError):
        checkpoint(tenant, head.point, expected_epoch=head.epoch)
    assert tenant.counts().blob_bytes == 0
    assert tenant.verify() == []


def test_forget_takes_along_what_read_it(tenant: TenantLedger) -> None:
    rows = [add(tenant, text) for text in "abcd"]
    for row in rows:
        tenant.record_learning(row.id, losses=[1.0])
    kept, dirty = checkpoint(tenant, Point(1, 1)), checkpoint(tenant, Point(1, 2), segment=1)
    clean_snapshot = tenant.create_snapshot("clean", point=Point(1, 1), digest="d", checkpoint=kept.id)
    held = tenant.create_snapshot("held", point=Point(1, 3), digest="d", checkpoint=dirty.id)
    other = tenant.restore(Point(1, 1))
    elsewhere = add(tenant, "x")
    tenant.record_learning(elsewhere.id, losses=[1.0])
    unrelated = checkpoint(tenant, elsewhere.point)
    result = tenant.forget([rows[1].id, rows[1].id])
    assert (result.documents, result.earliest_position, result.dropped_checkpoints) == ((rows[1].id,), None, 1)
    assert {row.id for row in tenant.checkpoints()} == {kept.id, unrelated.id}
    head = tenant.head()
    assert not head.relearning, "a detached document was not in the live weights"
    assert head.epoch == other.epoch + 1
    assert tenant.resolve_snapshot("clean") == clean_snapshot
    rebuilt = tenant.resolve_snapshot("held")
    assert result.rebuilt_snapshots == (rebuilt.id,)
    assert (rebuilt.rebuilt_from, rebuilt.digest, rebuilt.checkpoint, rebuilt.documents) == (held.id, None, None, 2)
    assert tenant.document(elsewhere.id).learned
    assert [row.learned for row in tenant.documents(point=rebuilt.point)] == [True, False]
    assert tenant.forgotten(rows[1].id)
    assert not tenant.forgotten(rows[0].id)
    tenant.restore(rebuilt.point)
    assert texts(tenant) == ["a", "c"]
    assert tenant.verify() == []


def test_forget_of_live_learned_text_asks_for_relearning(tenant: TenantLedger) -> None:
    rows = [add(tenant, text) for text in "abc"]
    for row in rows:
        tenant.record_learning(row.id, losses=[1.0])
    checkpoint(tenant, Point(1, 2))
    result = tenant.forget([rows[2].id, rows[1].id], expected_version=3)
    assert (result.earliest_position, result.dropped_checkpoints) == (2, 1)
    head = tenant.head()
    assert (head.relearning, head.version, head.position) == (True, 4, 3)
    assert [row.learned for row in tenant.documents()] == [True]
    with pytest.raises(ConflictError):
        tenant.finish_relearning(head.epoch - 1)
    assert not tenant.finish_relearning(head.epoch).relearning
    assert add(tenant, "b").position == 4, "a forgotten text may be given again, and positions are not reused"
    assert tenant.verify() == []


def test_forget_of_unlearned_text_costs_no_replay(tenant: TenantLedger) -> None:
    note = add(tenant, "note", learn=False)
    add(tenant, "learned")
    saved = checkpoint(tenant, Point(1, 2))
    tenant.create_snapshot("s", digest="d", checkpoint=saved.id)
    before = tenant.head()
    result = tenant.forget([note.id])
    assert (result.earliest_position, result.dropped_checkpoints, len(result.rebuilt_snapshots)) == (None, 0, 1)
    after = tenant.head()
    assert (after.epoch, after.relearning, after.version) == (before.epoch, False, before.version + 1)
    rebuilt = tenant.resolve_snapshot("s")
    assert (rebuilt.digest, rebuilt.checkpoint, rebuilt.documents) == ("d", saved.id, 1)
    assert tenant.verify() == []


def test_forget_is_all_or_nothing(tenant: TenantLedger) -> None:
    row = add(tenant, "a")
    head = tenant.head()
    with pytest.raises(DocumentNotFoundError):
        tenant.forget([row.id, "0" * 32])
    with pytest.raises(ConflictError):
        tenant.forget([row.id], expected_version=0)
    assert tenant.forget([]).documents == ()
    assert tenant.head() == head
    assert texts(tenant) == ["a"]


def test_gc_keeps_what_can_still_be_reached(tenant: TenantLedger) -> None:
    start = tenant.head().point
    add(tenant, "named")
    tenant.create_snapshot("keep")
    add(tenant, "lost")
    checkpoint(tenant, Point(1, 2))
    kept = checkpoint(tenant, Point(1, 1))
    tenant.restore(start)
    add(tenant, "live")
    assert tenant.gc(timedelta(days=1)) == ()
    assert len(tenant.gc(timedelta(0))) == 1
    assert tenant.gc(timedelta(0)) == ()
    assert [row.id for row in tenant.checkpoints()] == [kept.id]
    assert texts(tenant) == ["live"]
    tenant.restore(tenant.resolve_snapshot("keep").point)
    assert texts(tenant) == ["named"]
    assert tenant.verify() == []


def test_rederive_drops_everything_learned(tenant: TenantLedger) -> None:
    row = add(tenant, "a")
    tenant.pin_model({"name": "old"})
    tenant.record_learning(row.id, losses=[1.0])
    saved = checkpoint(tenant, row.point)
    tenant.create_snapshot("s", digest="d", checkpoint=saved.id)
    head = tenant.begin_rederive({"name": "new"}, expected_version=tenant.head().version)
    assert (head.model, head.relearning, head.epoch) == ({"name": "new"}, True, 1)
    assert tenant.checkpoints() == []
    snapshot = tenant.resolve_snapshot("s")
    assert (snapshot.digest, snapshot.checkpoint) == (None, None)
    assert not tenant.document(row.id).learned
    assert tenant.verify() == []
