"""Two tenants: anything done to A leaves every stored byte, score and answer of B unchanged."""

import pytest

from tests.memory.helpers import open_tiny, tenant_bytes, text
from ttt_memory.errors import DocumentNotFoundError, InvalidInputError, SnapshotNotFoundError

QUESTIONS = ["What is in note 3?", "copper lantern harbour", "Note 101"]


def seen(memory):
    # `store_bytes` is of the whole database, and timings differ from call to call.
    return {
        "answers": [memory.ask(q).model_dump(exclude={"timings"}) for q in QUESTIONS],
        "weights": memory.ask("river", mode="weights").model_dump(exclude={"timings"}),
        "hits": [[hit.model_dump() for hit in memory.search(q, limit=10)] for q in QUESTIONS],
        "score": memory.score(text(7)),
        "documents": [d.model_dump() for d in memory.documents()],
        "snapshots": [s.model_dump() for s in memory.snapshots()],
        "stats": memory.stats().model_dump(exclude={"store_bytes"}),
    }


def test_nothing_done_to_a_reaches_b(tmp_path):
    with open_tiny(tmp_path, tenant="a") as a, open_tiny(tmp_path, tenant="b") as b:
        b.ingest([text(n) for n in range(100, 104)])
        snapshot_b = b.snapshot("b")
        seen_before, bytes_before = seen(b), tenant_bytes(tmp_path, "b")
        assert sum(map(len, bytes_before.values())) > 20

        receipts = [a.ingest(text(n)) for n in range(6)]
        a.ingest(text(100))  # the same content as one of B's
        a.snapshot("b")  # the same label as B's
        a.forget(receipts[1].document_id)
        a.restore("b")
        with a.fork("c") as c:
            c.ingest(text(9))
        a.rederive()

        assert seen(b) == seen_before
        assert tenant_bytes(tmp_path, "b") == bytes_before
        with pytest.raises(DocumentNotFoundError):
            a.get(b.documents()[0].id)
        with pytest.raises(DocumentNotFoundError):
            a.forget(b.documents()[0].id)
        with pytest.raises(SnapshotNotFoundError):
            a.restore(snapshot_b)
    with open_tiny(tmp_path, tenant="b") as b:
        assert seen(b) == seen_before


@pytest.mark.parametrize("name", ["ü\u202e\u200b", "../../etc/passwd", "a'; DROP TABLE ttt_tenants; --", "x" * 10_000])
def test_hostile_tenant_names_are_names(tmp_path, name):
    with open_tiny(tmp_path, tenant=name) as memory:
        memory.ingest(text(1))
        assert memory.stats().tenant == name
    with open_tiny(tmp_path, tenant=name + "2") as other:
        assert other.documents() == []


@pytest.mark.parametrize("name", ["", "a\x00b"])
def test_names_that_no_database_keeps_are_refused(tmp_path, name):
    with pytest.raises(InvalidInputError):
        open_tiny(tmp_path, tenant=name)
