"""`verify` notices every kind of damage, and nothing else."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
from sqlalchemy import delete, insert, update

from tests.ledger.helpers import add, checkpoint, cut
from ttt_memory.ledger import Ledger, Point, TenantLedger
from ttt_memory.ledger.schema import blobs, checkpoints, chunks, documents, passages, postings, snapshots

DAMAGE: dict[str, Any] = {
    "documents: text changed": update(chunks).where(chunks.c.index == 0).values(data=b"x" * 65536),
    "documents: text not UTF-8": update(chunks).where(chunks.c.index == 1).values(data=b"\xff" * 100),
    "documents: chunk missing": delete(chunks).where(chunks.c.index == 0),
    "documents: chunk misplaced": update(chunks).where(chunks.c.index == 1).values(start_char=1),
    "documents: wrong size": update(documents).where(documents.c.position == 1).values(size=1),
    "documents: wrong key": update(documents).where(documents.c.position == 1).values(content_key=b"k" * 32),
    "documents: wrong metadata": update(documents).where(documents.c.position == 1).values(metadata="{"),
    "lineage: live lost": update(documents).where(documents.c.position == 1).values(live_key=None),
    "lineage: not dead": update(documents).where(documents.c.position == 2).values(detached_at=None),
    "lineage: position": update(documents).where(documents.c.position == 2).values(position=99),
    "passages: offsets": update(passages).where(passages.c.id == 1).values(end_char=10**9),
    "passages: missing": delete(passages).where(passages.c.id == 1),
    "passages: vector": update(passages).where(passages.c.id == 2).values(embedding=b"x"),
    "postings: missing": delete(postings).where(postings.c.passage == 1),
    "postings: count": update(postings).where(postings.c.passage == 1).values(tf=7),
    "postings: orphan": insert(postings).values(tenant=1, term=b"t", passage=999, tf=1),
    "checkpoints: changed": update(blobs).values(data=b"other"),
    "checkpoints: missing": delete(blobs),
    "checkpoints: orphan": delete(checkpoints),
    "snapshots: count": update(snapshots).values(documents=9),
    "snapshots: checkpoint": update(snapshots).values(checkpoint="0" * 32),
}


def filled(ledger: Ledger) -> TenantLedger:
    tenant = ledger.tenant("acme")
    text = "ab cd " * 12_000
    add(tenant, text, passages=cut(text[:200]))
    add(tenant, "detached")
    tenant.create_snapshot("s")
    tenant.restore(Point(1, 1))
    add(tenant, "live")
    checkpoint(tenant, tenant.head().point)
    return tenant


@pytest.fixture(scope="module")
def damaged_ledger() -> Any:
    with Ledger.open("sqlite://") as ledger:
        filled(ledger)
        yield ledger


@pytest.mark.parametrize("damage", list(DAMAGE))
def test_damage_is_found(damage: str, damaged_ledger: Ledger) -> None:
    tenant = damaged_ledger.tenant("acme")
    assert tenant.verify() == []
    findings = []
    with contextlib.suppress(ZeroDivisionError), damaged_ledger.store.write() as connection:
        assert connection.execute(DAMAGE[damage]).rowcount >= 1
        findings = list(tenant._verify(connection))
        raise ZeroDivisionError  # roll the damage back
    assert damage.partition(":")[0] in {finding.check for finding in findings}


def test_a_whole_ledger_has_no_findings(ledger: Ledger) -> None:
    assert filled(ledger).verify() == []
