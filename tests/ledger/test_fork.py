"""A fork is a whole copy that shares nothing; dropping a tenant leaves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, select

from tests.ledger.helpers import add, checkpoint, cut, dump, texts
from ttt_memory.errors import ConflictError, InvalidInputError, StoreUnavailableError, TenantNotFoundError
from ttt_memory.ledger import Ledger, Point, TenantLedger, append
from ttt_memory.ledger.schema import TENANT_TABLES


def fill(tenant: TenantLedger) -> None:
    add(tenant, "one two", metadata={"k": 1})
    add(tenant, "x" * 300 + " needle", passages=cut("x" * 300 + " needle"))
    add(tenant, "ok", stream="chat", sequence=3)
    tenant.record_learning(tenant.documents()[0].id, losses=[2.0, 1.0], skipped=1)
    tenant.pin_model({"name": "m"})
    tenant.pin_embedder("e")
    checkpoint(tenant, tenant.head().point)


def same_documents(a: TenantLedger, b: TenantLedger) -> None:
    kept = ["position", "characters", "size", "tokens", "learn", "learned", "losses", "skipped", "metadata"]
    kept += ["observed_at", "ingested_at", "stream", "sequence", "origin"]
    assert [[getattr(row, name) for name in kept] for row in a.documents()] == [
        [getattr(row, name) for name in kept] for row in b.documents()
    ]
    assert texts(a) == texts(b)
    assert [(p.ordinal, p.start, p.end, p.terms) for p in a.passages_of_all()] == [
        (p.ordinal, p.start, p.end, p.terms) for p in b.passages_of_all()
    ]
    assert a.passage_vectors().vectors.tolist() == b.passage_vectors().vectors.tolist()
    terms = ["one", "two", "needle", "x" * 40]
    assert {t: tf.tolist() for t, (_, tf) in a.postings(terms).items()} == {
        t: tf.tolist() for t, (_, tf) in b.postings(terms).items()
    }


def test_fork_copies_everything_and_shares_nothing(ledger: Ledger, tenant: TenantLedger) -> None:
    fill(tenant)
    before = dump(tenant)
    fork = tenant.copy_to("fork")
    assert dump(tenant) == before
    same_documents(tenant, fork)
    assert (fork.head().model, fork.head().embedder, fork.head().position) == ({"name": "m"}, "e", 3)
    assert not {row.id for row in fork.documents()} & {row.id for row in tenant.documents()}
    assert not {row.content_key for row in fork.documents()} & {row.content_key for row in tenant.documents()}
    assert fork.key != tenant.key
    assert fork.checkpoints() == []
    assert fork.verify() == []
    add(fork, "more")
    fork.forget([fork.documents()[0].id])
    assert dump(tenant) == before
    assert ledger.tenants() == ["acme", "fork"]
    with pytest.raises(ConflictError):
        tenant.copy_to("fork")
    with pytest.raises(InvalidInputError):
        tenant.copy_to("else", point=Point(5, 1))
    assert ledger.tenants() == ["acme", "fork"]


def test_fork_at_a_detached_point(tenant: TenantLedger) -> None:
    add(tenant, "a")
    start = tenant.head().point
    add(tenant, "b")
    late = tenant.create_snapshot("late")
    tenant.restore(start)
    add(tenant, "c")
    fork = tenant.copy_to("fork", point=late.point)
    assert texts(fork) == ["a", "b"]
    assert add(fork, "d").position == 3
    assert fork.verify() == []
    assert texts(tenant.copy_to("empty", point=Point(1, 0))) == []


def test_fork_into_another_database(tenant: TenantLedger, tmp_path: Path) -> None:
    fill(tenant)
    with Ledger.open(f"sqlite:///{tmp_path / 'other.db'}") as other:
        fork = tenant.copy_to("acme", ledger=other)
        same_documents(tenant, fork)
        assert fork.verify() == []


def test_a_fork_that_fails_leaves_nothing(
    tenant: TenantLedger, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    fill(tenant)
    before = dump(tenant)
    real, calls = append.Append._insert, []

    def fails(self: TenantLedger, *rest: object) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise StoreUnavailableError("The disk is full.")
        real(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(append.Append, "_insert", fails)
    with pytest.raises(StoreUnavailableError):
        tenant.copy_to("fork")
    monkeypatch.undo()
    assert ledger.tenants() == ["acme"]
    assert dump(tenant) == before
    assert texts(tenant.copy_to("fork")) == texts(tenant)


def test_a_document_forgotten_meanwhile_does_not_slip_through(
    tenant: TenantLedger, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    fill(tenant)
    real = TenantLedger._finish_copy

    def late(self: TenantLedger, *rest: object) -> None:
        self.forget([self.documents()[0].id])
        real(self, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(TenantLedger, "_finish_copy", late)
    with pytest.raises(ConflictError):
        tenant.copy_to("fork")
    assert ledger.tenants() == ["acme"]


def test_a_half_made_fork_cannot_be_opened(
    tenant: TenantLedger, monkeypatch: pytest.MonkeyPatch, ledger: Ledger
) -> None:
    fill(tenant)
    seen: list[str] = []

    def look(self: TenantLedger, *rest: object) -> None:
        seen.extend(ledger.tenants())
        with pytest.raises(ConflictError):
            ledger.tenant("fork")

    monkeypatch.setattr(TenantLedger, "_finish_copy", look)
    tenant.copy_to("fork")
    assert seen == ["acme"]


def test_dropping_a_tenant(ledger: Ledger, tenant: TenantLedger) -> None:
    fill(tenant)
    tenant.create_snapshot("s")
    other = ledger.tenant("other")
    fill(other)
    before = dump(other)
    tenant.drop()
    with pytest.raises(TenantNotFoundError):
        tenant.head()
    with pytest.raises(TenantNotFoundError):
        add(tenant, "late")
    with ledger.store.read() as connection:
        for table in TENANT_TABLES:
            assert not connection.execute(select(table).where(table.c.tenant == tenant._tenant)).all()
    assert dump(other) == before
    new = ledger.tenant("acme")
    assert new._tenant != tenant._tenant, "a stale handle must not reach a tenant of the same name"
    assert texts(new) == []


def test_one_document_s_postings_are_found_by_index(tmp_path: Path) -> None:
    """SQLite's planner prefers a scan of all of a tenant's postings to the index, unless asked in the right words."""
    with Ledger.open(f"sqlite:///{tmp_path / 'memory.db'}") as ledger:
        tenant = ledger.tenant("acme")
        fill(tenant)
        seen: list[tuple[str, Any]] = []
        engine: Any = ledger.store._engine
        event.listen(engine, "before_cursor_execute", lambda _c, _k, text, values, *_: seen.append((text, values)))
        tenant.copy_to("fork")
        tenant.forget([tenant.documents()[0].id])
        ours = [item for item in seen if "FROM ttt_postings" in item[0]]
        assert {item[0].split()[0] for item in ours} == {"SELECT", "DELETE"}
        with ledger.store.write() as connection:
            for text, values in ours:
                plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {text}", values).all()
                assert "passage" in plan[0][3], plan
