"""A process of its own, for tests of races and of sudden death.

`python -m tests.ledger.worker JOB URL ...` runs one job. `python -m tests.ledger.worker serve` reads lines
`JOB URL MOMENT`, runs each job in a child that is killed before its statement number MOMENT, and prints the child's
wait status: one import serves hundreds of deaths. (It forks, which is safe here: nothing it imports starts threads.)
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

from sqlalchemy import event

from tests.ledger.helpers import add, checkpoint, cut
from ttt_memory.errors import ConflictError
from ttt_memory.ledger import Ledger, Point, TenantLedger

LARGE = "".join(f"large{number} " for number in range(700_000))


def increments(tenant: TenantLedger, name: str, count: str) -> None:
    """Append `count` documents by compare-and-swap, retrying on conflict."""
    for number in range(int(count)):
        while True:
            try:
                add(tenant, f"{name} {number}", expected_version=tenant.head().version, passages=[])
                break
            except ConflictError:
                continue


def same(tenant: TenantLedger, count: str) -> None:
    """Append the same texts as every other worker."""
    for number in range(int(count)):
        add(tenant, f"the same {number}")


def large(tenant: TenantLedger) -> None:
    """Append a document that takes several transactions."""
    add(tenant, LARGE, passages=cut(LARGE[:4000]))


def state(tenant: TenantLedger) -> None:
    """Store a checkpoint that takes several transactions."""
    checkpoint(tenant, tenant.head().point, b"x" * (9 * 2**20))


def forget(tenant: TenantLedger) -> None:
    """Forget the document called canary."""
    tenant.forget([row.id for row in tenant.documents() if row.metadata.get("canary")])


def restore(tenant: TenantLedger) -> None:
    """Restore to before the last document."""
    tenant.restore(Point(tenant.head().branch, tenant.head().position - 1))


def fork(tenant: TenantLedger) -> None:
    """Copy the tenant."""
    tenant.copy_to("fork")


def die_at(ledger: Ledger, moment: int) -> None:
    """SIGKILL this process before its statement number `moment` (commits and the purge count), counted from now."""
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    purge = ledger.store.purge_residue

    def counted_purge() -> bool:
        count()
        return purge()

    ledger.store.purge_residue = counted_purge  # type: ignore[method-assign]
    engine: Any = ledger.store._engine
    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", count)


def run(job: str, url: str, *rest: str, moment: int | None = None) -> None:
    """Run one job on tenant `acme`, to be killed at a moment if one is given."""
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("acme")
        if moment is not None:
            die_at(ledger, moment)
        globals()[job](tenant, *rest)


def serve() -> None:
    """Run jobs in children until the input ends."""
    for line in sys.stdin:
        job, url, moment = line.split()
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(job, url, moment=int(moment))
                code = 0
            finally:
                os._exit(code)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve()
    else:
        run(*sys.argv[1:])
