"""Several processes on one tenant: nothing is lost, nothing is there twice."""

from __future__ import annotations

import threading

from tests.ledger.helpers import add, spawn, texts
from ttt_memory.ledger import Ledger, TenantLedger


def test_200_appends_of_4_processes_are_all_there(url: str) -> None:
    workers = [spawn("increments", url, f"w{number}", "50") for number in range(4)]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * 4
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("acme", create=False)
        assert sorted(texts(tenant)) == sorted(f"w{worker} {number}" for worker in range(4) for number in range(50))
        assert [row.position for row in tenant.documents()] == list(range(1, 201))
        assert tenant.head().version == 200
        assert tenant.verify() == []


def test_the_same_text_from_3_processes_is_one_document(url: str) -> None:
    workers = [spawn("same", url, "10") for _ in range(3)]
    assert [worker.wait(timeout=120) for worker in workers] == [0] * 3
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("acme", create=False)
        assert sorted(texts(tenant)) == sorted(f"the same {number}" for number in range(10))
        assert tenant.verify() == []


def test_threads_share_a_handle(url: str) -> None:
    with Ledger.open(url) as ledger:
        hammer(ledger.tenant("acme"))


def test_threads_share_a_memory_database() -> None:
    """One connection is all there is: transactions take turns."""
    with Ledger.open("sqlite://") as ledger:
        hammer(ledger.tenant("acme"))


def hammer(tenant: TenantLedger) -> None:
    errors: list[BaseException] = []

    def work(name: int) -> None:
        try:
            for number in range(10):
                row = add(tenant, f"{name} {number}")
                assert tenant.text(row.id) == f"{name} {number}"
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert tenant.counts().documents == 40
    assert tenant.verify() == []
