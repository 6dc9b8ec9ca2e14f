"""Whatever is done to one tenant: every stored byte of another stays, and no statement forgets the tenant."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

from sqlalchemy import event

from tests.ledger.helpers import add, checkpoint, cut, dump
from ttt_memory.ledger import Ledger, TenantLedger


def everything(tenant: TenantLedger) -> None:
    """Every verb once."""
    first = add(tenant, "shared text", stream="s", sequence=0)
    start = tenant.create_snapshot("label")
    second = add(tenant, "shared word", metadata={"a": 1})
    add(tenant, "word " * 1_100_000, passages=cut("word " * 50))
    tenant.pin_model({"name": tenant.name})
    tenant.pin_embedder("e")
    tenant.record_learning(first.id, losses=[1.0])
    saved = checkpoint(tenant, tenant.head().point, b"x" * (5 * 2**20))
    tenant.load_blob(saved.blob)
    tenant.checkpoints()
    tenant.best_checkpoint(tenant.head().point, "m")
    tenant.update_snapshot(start.id, digest="d", checkpoint=saved.id)
    tenant.snapshots()
    tenant.find_document(tenant.content_key("shared text"))
    tenant.find_append("s", 0)
    tenant.next_sequence("s")
    tenant.stream_documents("s")
    tenant.documents(point=start.point)
    tenant.text_range(second.id, 0, 3)
    ids = tenant.passages_of([first.id, second.id])
    tenant.passages(ids)
    tenant.passages_of_all()
    tenant.passage_rows(first.id)
    tenant.passage_vectors()
    tenant.postings(["shared", "word"])
    tenant.postings(["shared", "word"], most=1)
    tenant.holding(["shared", "word"], ids)
    tenant.live_metadata()
    tenant.replace_passages(second.id, cut("shared word", 6))
    tenant.counts()
    tenant.restore(start.point)
    tenant.gc(timedelta(0))
    tenant.drop_checkpoints([row.id for row in tenant.checkpoints()])
    tenant.forget([first.id])
    tenant.forgotten(first.id)
    tenant.begin_rederive({"name": "new"})
    tenant.finish_relearning(tenant.head().epoch)
    tenant.verify()
    add(tenant, "last")
    tenant.copy_to(f"{tenant.name} copy").drop()
    tenant.delete_snapshot("label")


def test_nothing_done_to_a_changes_b(ledger: Ledger) -> None:
    a, b = ledger.tenant("a"), ledger.tenant("b")
    add(b, "shared text", stream="s", sequence=0)
    add(b, "shared word")
    checkpoint(b, b.head().point)
    b.create_snapshot("label")
    before, postings = dump(b), {term: ids.tolist() for term, (ids, _) in b.postings(["shared", "word"]).items()}
    everything(a)
    a.drop()
    assert dump(b) == before
    assert {term: ids.tolist() for term, (ids, _) in b.postings(["shared", "word"]).items()} == postings
    assert b.verify() == []


def test_every_statement_names_the_tenant(ledger: Ledger) -> None:
    tenant = ledger.tenant("a")
    seen: list[str] = []

    def look(_c: Any, _k: Any, statement: str, *_: Any) -> None:
        seen.append(re.sub(r"\s+", " ", statement))

    engine: Any = ledger.store._engine
    event.listen(engine, "before_cursor_execute", look)
    everything(tenant)
    event.remove(engine, "before_cursor_execute", look)
    ours = [statement for statement in seen if "ttt_" in statement]
    assert len(ours) > 200
    for statement in ours:
        if statement.startswith("INSERT INTO ttt_tenants") or "WHERE ttt_tenants.name_key =" in statement:
            continue  # the registry: a tenant by its name
        if statement.startswith("INSERT"):
            assert re.match(r"INSERT INTO ttt_\w+ \(tenant, ", statement), statement
            continue
        table = re.match(r"(?:UPDATE|DELETE FROM|.*? FROM) (ttt_\w+)", statement.partition(" line ")[0] or statement)
        assert table or "WITH RECURSIVE" in statement, statement
        bound = set(re.findall(r"(ttt_\w+)\.(?:tenant|id) = (?:\?|%\()", statement))
        joined = set(re.findall(r"(ttt_\w+)\.tenant = (ttt_\w+)\.tenant", statement))
        named = set(re.findall(r"(?:FROM|JOIN|UPDATE|,) (ttt_\w+)", statement))
        bound |= {name for pair in joined if bound & set(pair) for name in pair}
        assert named <= bound, f"{named - bound} not bound in: {statement}"


def test_two_tenants_have_nothing_in_common(ledger: Ledger) -> None:
    a, b = ledger.tenant("a"), ledger.tenant("b")
    for tenant in (a, b):
        add(tenant, "the same", stream="s", sequence=0)
        checkpoint(tenant, tenant.head().point, b"the same state")
    keys = [
        {bytes(a.key), a.documents()[0].content_key, a.documents()[0].id, a.checkpoints()[0].blob},
        {bytes(b.key), b.documents()[0].content_key, b.documents()[0].id, b.checkpoints()[0].blob},
    ]
    assert not keys[0] & keys[1]
    assert a.find_document(b.documents()[0].content_key) is None
    assert a.passages_of([b.documents()[0].id]) == []
