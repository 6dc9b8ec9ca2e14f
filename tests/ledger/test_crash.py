"""A process killed at any statement of any verb leaves the state from before or from after, and nothing in between."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.ledger.helpers import add, checkpoint, cut, finish, spawn, texts
from tests.ledger.worker import LARGE
from ttt_memory.ledger import Ledger, TenantLedger
from ttt_memory.ledger.schema import uploads

CANARY = "CANARYTEXT and CANARYTERM"
ENOUGH = 400


def prepare(url: str) -> None:
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("acme")
        add(tenant, "first")
        add(tenant, CANARY, metadata={"canary": True})
        tenant.create_snapshot("held")
        checkpoint(tenant, tenant.head().point)
        add(tenant, "last")


def after_large(tenant: TenantLedger) -> bool:
    here = texts(tenant)
    assert here in (["first", CANARY, "last"], ["first", CANARY, "last", LARGE])
    assert tenant.counts().passages == 3 + (len(cut(LARGE[:4000])) if len(here) == 4 else 0)
    return len(here) == 4


def after_state(tenant: TenantLedger) -> bool:
    rows = tenant.checkpoints()
    assert all(len(tenant.load_blob(row.blob)) == row.size for row in rows)
    assert tenant.counts().blob_bytes == sum(row.size for row in rows)
    return len(rows) == 2


def after_forget(tenant: TenantLedger) -> bool:
    gone = CANARY not in texts(tenant)
    assert tenant.head().relearning == gone
    assert len(tenant.checkpoints()) == (0 if gone else 1)
    assert (tenant.resolve_snapshot("held").rebuilt_from is not None) == gone
    assert bool(tenant.postings(["CANARYTERM"])["CANARYTERM"][0].size) != gone
    return gone


def after_restore(tenant: TenantLedger) -> bool:
    here = texts(tenant)
    assert here in (["first", CANARY, "last"], ["first", CANARY])
    assert tenant.counts().detached == 3 - len(here)
    return len(here) == 2


def after_fork(tenant: TenantLedger) -> bool:
    return False


JOBS: dict[str, Callable[[TenantLedger], bool]] = {
    "large": after_large,
    "state": after_state,
    "forget": after_forget,
    "restore": after_restore,
    "fork": after_fork,
}


@pytest.mark.parametrize("job", list(JOBS))
def test_killed_at_any_statement(job: str, tmp_path: Path) -> None:
    """Moments 1, 3, 6, 10, ... until the job outlives its moment."""
    moment, step, killed = 1, 2, 0
    while moment < ENOUGH:
        folder = tmp_path / str(moment)
        folder.mkdir()
        url = f"sqlite:///{folder / 'memory.db'}"
        prepare(url)
        status = finish(spawn(job, url, die_at=moment))
        with Ledger.open(url) as ledger:
            names = ledger.tenants()
            tenant = ledger.tenant("acme", create=False)
            done = JOBS[job](tenant)
            assert tenant.verify() == []
            with ledger.store.read() as connection:
                assert connection.execute(uploads.select()).all() == []
            if job == "fork":
                done = names == ["acme", "fork"]
                assert names in (["acme"], ["acme", "fork"])
                fork = ledger.tenant("fork")
                assert texts(fork) == (texts(tenant) if done else [])
            elif job == "forget" and done:
                found = [file.name for file in folder.iterdir() if b"CANARY" in file.read_bytes()]
                assert found == [], "opening finishes what the crash left in the log"
        if status == 0:
            assert done
            break
        assert status == -signal.SIGKILL
        killed += 1
        moment, step = moment + step, step + 1
    assert killed > 2
    assert status == 0


def test_uploads_of_living_processes_are_left_alone(url: str) -> None:
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("acme")
        with tenant._write() as (connection, _):
            tenant._begin_upload(connection, "blob", "f" * 64)
        assert ledger.sweep() == 0
        with Ledger.open(url) as other, other.store.read() as connection:
            assert len(connection.execute(uploads.select()).all()) == 1
        with ledger.store.write() as connection:
            connection.execute(uploads.update().values(owner="elsewhere:1:1"))
        assert ledger.sweep() == 0
        with ledger.store.write() as connection:
            connection.execute(uploads.update().values(started_at=uploads.c.started_at - 25 * 3600 * 10**6))
        assert ledger.sweep() == 1
