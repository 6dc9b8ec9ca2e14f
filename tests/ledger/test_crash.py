"""A process killed at any statement of any verb leaves the state from before or from after, and nothing in between."""

from __future__ import annotations

import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.ledger.helpers import add, checkpoint, cut, spawn, texts
from tests.ledger.worker import LARGE
from ttt_memory.ledger import Ledger, TenantLedger
from ttt_memory.ledger.schema import uploads

CANARY = "CANARYTEXT and CANARYTERM"


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed database file with a canary, a snapshot and a checkpoint."""
    file = tmp_path_factory.mktemp("prepared") / "memory.db"
    with Ledger.open(f"sqlite:///{file}") as ledger:
        tenant = ledger.tenant("acme")
        add(tenant, "first")
        add(tenant, CANARY, metadata={"canary": True})
        tenant.create_snapshot("held")
        checkpoint(tenant, tenant.head().point)
        add(tenant, "last")
    return file


@pytest.fixture(scope="module")
def worker() -> Iterator[subprocess.Popen[str]]:
    """A process that runs jobs in children which die on command."""
    with spawn("serve", stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()


def die(worker: subprocess.Popen[str], job: str, url: str, moment: int) -> int:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{job} {url} {moment}\n")
    worker.stdin.flush()
    return int(worker.stdout.readline())


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


JOBS: dict[str, Callable[[TenantLedger], bool]] = {
    "large": after_large,
    "state": after_state,
    "forget": after_forget,
    "restore": after_restore,
}


@pytest.mark.parametrize("job", [*JOBS, "fork"])
def test_killed_at_any_statement(job: str, tmp_path: Path, prepared: Path, worker: subprocess.Popen[str]) -> None:
    """Moments 1, 2, 4, 7, 11, ... until the job outlives its moment."""
    moment, step, status = 1, 1, -signal.SIGKILL
    while status == -signal.SIGKILL:
        file = Path(shutil.copy(prepared, tmp_path / f"{moment}.db"))
        url = f"sqlite:///{file}"
        status = die(worker, job, url, moment)
        with Ledger.open(url) as ledger:
            done = check(job, ledger)
            if job == "forget" and done:
                held = [path.name for path in tmp_path.glob(f"{moment}.db*") if b"CANARY" in path.read_bytes()]
                assert held == [], "opening finishes what the crash left undone"
        moment, step = moment + step, step + 1
    assert status == 0
    assert done
    assert step > 5, "it died more often than a few times"


def check(job: str, ledger: Ledger) -> bool:
    """Everything is as before the job, or (True) as after it."""
    names = ledger.tenants()
    tenant = ledger.tenant("acme", create=False)
    with ledger.store.read() as connection:
        assert connection.execute(uploads.select()).all() == []
    assert tenant.verify() == []
    if job != "fork":
        return JOBS[job](tenant)
    assert names in (["acme"], ["acme", "fork"])
    if len(names) == 2:
        assert texts(ledger.tenant("fork", create=False)) == texts(tenant)
    assert texts(tenant) == ["first", CANARY, "last"]
    return len(names) == 2


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
