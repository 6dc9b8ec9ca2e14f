"""After `forget` no file of an SQLite store holds a byte of the text, its terms, its stream or its metadata."""

from __future__ import annotations

import random
from datetime import timedelta
from pathlib import Path

import pytest

from tests.ledger.helpers import add, checkpoint, cut
from ttt_memory.ledger import Ledger, Point, engine


def holding(folder: Path, *needles: bytes) -> list[str]:
    return [
        f"{file.name}: {needle!r}" for file in folder.iterdir() for needle in needles if needle in file.read_bytes()
    ]


def test_forget_leaves_no_byte_in_any_file(tmp_path: Path) -> None:
    rng = random.Random(5)
    words = [f"w{number:05d}" for number in range(3000)]
    needles = (b"CANARY", b"canary-stream", b"canary-meta")
    with Ledger.open(f"sqlite:///{tmp_path / 'memory.db'}") as ledger:
        tenant = ledger.tenant("acme")
        other = ledger.tenant("other")
        doomed = []
        for number in range(60):
            text = " ".join(rng.choices(words, k=rng.choice([5, 60, 900])))
            if number % 6 == 3:
                canaries = [f"CANARY{rng.randrange(10**9)}" for _ in range(rng.choice([1, 30, 2000]))]
                text = " ".join([text, *canaries, text])
                row = add(tenant, text, stream="canary-stream", sequence=number, metadata={"k": "canary-meta"})
                doomed.append(row.id)
            else:
                add(rng.choice([tenant, other]), text)
        tenant.create_snapshot("s")
        checkpoint(tenant, tenant.head().point, b"CANARY weights " * 1000)
        tenant.restore(Point(1, 20))
        large = add(tenant, "CANARYLARGE " * 500_000, passages=cut("CANARYLARGE " * 50))
        doomed.append(large.id)
        assert len(holding(tmp_path, *needles)) >= len(needles), "the needles are there to be found"
        tenant.forget(doomed)
        assert holding(tmp_path, *needles) == []
        assert tenant.verify() == []
        assert other.verify() == []
    assert holding(tmp_path, *needles) == []


def test_gc_and_drop_leave_no_byte_either(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'memory.db'}") as ledger:
        tenant = ledger.tenant("acme")
        start = tenant.head().point
        add(tenant, "CANARYONE " * 3000)
        tenant.restore(start)
        tenant.gc(timedelta(0))
        assert holding(tmp_path, b"CANARYONE") == []
        add(tenant, "CANARYTWO " * 3000)
        tenant.create_snapshot("CANARYTWO")
        tenant.drop()
        assert holding(tmp_path, b"CANARYTWO", b"acme") == []


def test_a_reader_elsewhere_only_delays_the_purge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    monkeypatch.setattr(engine, "TRUNCATE_MILLIS", 50)
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("acme")
        row = add(tenant, "CANARYTEXT")
        with Ledger.open(url) as other, other.store.read() as connection:
            connection.exec_driver_sql("SELECT count(*) FROM ttt_documents")
            assert not tenant.forget([row.id]).purged
            assert holding(tmp_path, b"CANARYTEXT") != []
        assert tenant.purge_residue()
        assert holding(tmp_path, b"CANARYTEXT") == []
