"""A process of its own: `python -m tests.ledger.worker JOB URL ...`, for tests of races and of sudden death."""

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
    """SIGKILL this process before its statement number `moment` (commits count), counted from now."""
    seen = 0

    def count(*_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == moment:
            os.kill(os.getpid(), signal.SIGKILL)

    engine: Any = ledger.store._engine
    event.listen(engine, "before_cursor_execute", count)
    event.listen(engine, "commit", count)


def main() -> None:
    """Run one job; `DIE_AT` in the environment names the statement before which the process is killed."""
    job, url, *rest = sys.argv[1:]
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("acme")
        if "DIE_AT" in os.environ:
            die_at(ledger, int(os.environ["DIE_AT"]))
        globals()[job](tenant, *rest)


if __name__ == "__main__":
    main()
