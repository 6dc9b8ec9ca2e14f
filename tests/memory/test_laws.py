"""Digest laws: the fast weights are a pure function of the live ledger."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.memory.helpers import digest, digest_of_fresh, open_tiny, text
from ttt_memory import CompressedMemory, Document
from ttt_memory.errors import (
    ConflictError,
    CorruptionError,
    DocumentNotFoundError,
    InvalidInputError,
    SnapshotNotFoundError,
)


def test_reading_changes_the_weights_and_the_same_ledger_gives_the_same_digest(tmp_path):
    with open_tiny(tmp_path) as memory:
        empty = digest(memory)
        receipt = memory.ingest(text(1, 400))
        assert receipt.created
        assert receipt.learned
        assert receipt.losses
        assert receipt.surprise > 0
        assert digest(memory) != empty
        assert digest(memory) == digest_of_fresh(tmp_path / "again", [text(1, 400)])


def test_the_same_document_twice_is_one(tmp_path):
    with open_tiny(tmp_path) as memory:
        first = memory.ingest(text(1))
        before = digest(memory)
        second = memory.ingest(text(1), metadata={"other": True})
        assert not second.created
        assert second.document_id == first.document_id
        assert second.losses == first.losses
        assert digest(memory) == before
        assert len(memory.documents()) == 1


def test_appends_of_a_stream_keep_the_second_ok(tmp_path):
    with open_tiny(tmp_path) as memory:
        first = memory.ingest(Document(text="ok", stream="chat", sequence=1))
        second = memory.ingest(Document(text="ok", stream="chat", sequence=2))
        again = memory.ingest(Document(text="ok", stream="chat", sequence=2))
        third = memory.ingest(Document(text="ok", stream="chat"))
        assert (first.created, second.created, again.created, third.created) == (True, True, False, True)
        assert again.document_id == second.document_id
        assert [d.sequence for d in memory.documents()] == [1, 2, 3]
        with pytest.raises(ConflictError, match="sequence 2"):
            memory.ingest(Document(text="no", stream="chat", sequence=2))
        assert memory.verify(replay=True).ok


def test_restore_back_and_forward(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1))
        early = memory.snapshot("early")
        memory.ingest(text(2))
        late, late_digest = memory.snapshot("late"), digest(memory)
        memory.restore("early")
        assert digest(memory) == early.digest
        assert len(memory.documents()) == 1
        assert not any("Note 2" in hit.text for hit in memory.search("Note 2"))
        memory.ingest(text(3))
        assert digest(memory) == digest_of_fresh(tmp_path / "13", [text(1), text(3)])
        memory.restore(late.id)
        assert digest(memory) == late_digest
        assert [d.text for d in (memory.get(i.id) for i in memory.documents())] == [text(1), text(2)]
        assert "Note 2" in memory.search("Note 2")[0].text
        assert memory.verify(replay=True).ok
        with pytest.raises(SnapshotNotFoundError):
            memory.restore("never")
        with pytest.raises(ConflictError):
            memory.snapshot("early")


def test_forget_is_a_memory_that_never_read_it(tmp_path):
    with open_tiny(tmp_path) as memory:
        receipts = [memory.ingest(text(n)) for n in range(5)]
        snapshot = memory.snapshot("all")
        report = memory.forget(receipts[2].document_id)
        assert report.replayed_tokens > 0
        expected = digest_of_fresh(tmp_path / "never", [text(n) for n in (0, 1, 3, 4)])
        assert report.digest == digest(memory) == expected
        assert not memory.stats().relearning
        with pytest.raises(DocumentNotFoundError):
            memory.get(receipts[2].document_id)
        assert not any("Note 2" in hit.text for hit in memory.search("Note 2.", limit=20))
        rebuilt = memory.snapshots()[0]
        assert (rebuilt.label, rebuilt.rebuilt_from, rebuilt.digest) == ("all", snapshot.id, None)
        memory.restore("all")
        assert digest(memory) == expected
        assert memory.verify(replay=True).ok


def test_forgotten_text_leaves_no_byte_behind(tmp_path):
    canary = "xylocarp-7741-quizzify"
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(0))
        receipt = memory.ingest(f"The passphrase is {canary}. " + text(1), metadata={"secret": canary})
        memory.ingest(text(2))
        memory.snapshot("with")
        assert any(canary.encode() in path.read_bytes() for path in tmp_path.iterdir())
        memory.forget(receipt.document_id)
        assert memory.search(canary) == [] or canary not in memory.search(canary)[0].text
        for path in tmp_path.iterdir():
            assert canary.encode() not in path.read_bytes(), path.name
    for path in tmp_path.iterdir():
        assert canary.encode() not in path.read_bytes(), path.name


def test_forget_by_filter_and_its_estimate(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1), metadata={"kind": "keep"})
        memory.ingest(text(2), metadata={"kind": "drop"})
        memory.ingest(text(3), metadata={"kind": "keep"})
        estimate = memory.estimate(where={"kind": "drop"})
        report = memory.forget(where={"kind": "drop"})
        assert report.replayed_tokens == estimate.tokens
        assert digest(memory) == digest_of_fresh(tmp_path / "f", [text(1), text(3)])
        with pytest.raises(InvalidInputError):
            memory.forget(where={})
        with pytest.raises(DocumentNotFoundError):
            memory.forget([memory.documents()[0].id, "nobody"])
        assert len(memory.documents()) == 2


def test_what_is_not_learned_never_touches_the_weights(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1))
        before = digest(memory)
        receipt = memory.ingest(text(2), learn=False)
        assert not receipt.learned
        assert digest(memory) == before
        assert "Note 2" in memory.search("Note 2")[0].text
        assert memory.forget(receipt.document_id).replayed_tokens == 0
        assert digest(memory) == before


def test_a_fork_diverges_without_touching_its_parent(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1))
        snapshot = memory.snapshot("one")
        memory.ingest(text(2))
        before = digest(memory)
        with memory.fork("now") as now, memory.fork("then", at=snapshot) as then:
            assert digest(now) == before
            assert digest(then) == snapshot.digest
            then.ingest(text(3))
            assert digest(then) == digest_of_fresh(tmp_path / "13", [text(1), text(3)])
            now.forget(now.documents()[0].id)
            assert digest(now) == digest_of_fresh(tmp_path / "2", [text(2)])
            assert now.verify(replay=True).ok
            assert then.verify(replay=True).ok
        assert digest(memory) == before
        assert len(memory.documents()) == 2
        assert memory.verify(replay=True).ok
        with pytest.raises(ConflictError):
            memory.fork("now")
    with open_tiny(tmp_path, tenant="then") as then:
        assert len(then.documents()) == 2


def test_reopened_is_as_closed(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest([text(n) for n in range(3)])
        before = digest(memory)
    with open_tiny(tmp_path) as memory:
        assert digest(memory) == before
        assert memory.stats().learned_through == 3
        assert all(d.learned for d in memory.documents())


def test_interrupted_learning_is_taken_up_again(tmp_path):
    long = text(1, 2000)

    class StopHereError(Exception):
        pass

    def stop_late(step):
        if step.stage == "learn" and step.done > step.total // 2:
            raise StopHereError

    with open_tiny(tmp_path) as memory:
        with pytest.raises(StopHereError):
            memory.ingest(long, progress=stop_late)
        assert memory.documents()[0].learned is False
        assert memory.search("Note 1")
        receipt = memory.ingest(long)
        assert not receipt.created
        assert receipt.learned
        assert digest(memory) == digest_of_fresh(tmp_path / "whole", [long])
        assert receipt.losses == open_and_ingest(tmp_path / "losses", long).losses


def open_and_ingest(folder: Path, body: str):
    folder.mkdir()
    with open_tiny(folder) as memory:
        return memory.ingest(body)


SCRIPT = """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
from ttt_memory import CompressedMemory
with CompressedMemory.open("sqlite:///" + sys.argv[1], tenant="a", model="tiny") as memory:
    memory.ingest("the quick brown fox jumps over the lazy dog. " * 200)
    print(memory.stats().digest)
"""


def test_the_application_s_thread_count_does_not_matter(tmp_path):
    digests = set()
    for threads in ("1", "8"):
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / f"{threads}.db"), threads]
        digests.add(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert len(digests) == 1


def test_eight_application_threads_make_one_consistent_memory(tmp_path):
    with open_tiny(tmp_path) as memory:
        threads = [threading.Thread(target=lambda n=n: memory.ingest(text(n))) for n in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(d.position for d in memory.documents()) == list(range(1, 9))
        texts = [memory.get(d.id).text for d in memory.documents()]
        assert sorted(texts) == sorted(text(n) for n in range(8))
        assert digest(memory) == digest_of_fresh(tmp_path / "order", texts)
        assert memory.verify(replay=True).ok


def test_two_handles_on_one_tenant_stay_in_step(tmp_path):
    with open_tiny(tmp_path) as one, open_tiny(tmp_path) as two:
        receipt = one.ingest(text(1))
        two.ingest(text(2))
        assert digest(two) == digest_of_fresh(tmp_path / "12", [text(1), text(2)])
        assert "Note 2" in one.search("Note 2")[0].text
        two.forget(receipt.document_id)
        one.ingest(text(3))
        expected = digest_of_fresh(tmp_path / "23", [text(2), text(3)])
        assert digest(one) == expected
        two.ingest(text(4))
        assert digest(two) == digest_of_fresh(tmp_path / "234", [text(2), text(3), text(4)])
        assert one.verify(replay=True).ok


def test_export_and_import_give_the_same_digest(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1), metadata={"a": 1})
        memory.snapshot("one")
        memory.ingest([Document(text="hello", stream="s"), Document(text="again", stream="s")])
        memory.ingest(text(2), learn=False)
        before, listed = digest(memory), [d.model_dump(exclude={"id", "ingested_at"}) for d in memory.documents()]
        path = memory.export(tmp_path / "a.tttm")
        with pytest.raises(InvalidInputError, match="exists"):
            memory.export(path)
    with CompressedMemory.import_(path, f"sqlite:///{tmp_path / 'b.db'}") as copy:
        assert digest(copy) == before
        assert [d.model_dump(exclude={"id", "ingested_at"}) for d in copy.documents()] == listed
        assert copy.verify(replay=True).ok
        copy.restore("one")
        assert len(copy.documents()) == 1
        with pytest.raises(ConflictError):
            CompressedMemory.import_(path, f"sqlite:///{tmp_path / 'b.db'}")


def test_an_interrupted_import_leaves_nothing(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest([text(1), text(2)])
        path = memory.export(tmp_path / "a.tttm")

    def stop_at_once(step):
        raise KeyboardInterrupt

    url = f"sqlite:///{tmp_path / 'b.db'}"
    with pytest.raises(KeyboardInterrupt):
        CompressedMemory.import_(path, url, progress=stop_at_once)
    with CompressedMemory.import_(path, url) as copy:
        assert len(copy.documents()) == 2
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / "damaged.tttm").write_bytes(damaged)
    with pytest.raises(CorruptionError):
        CompressedMemory.import_(tmp_path / "damaged.tttm", f"sqlite:///{tmp_path / 'c.db'}")


class Model(RuleBasedStateMachine):
    """Any order of verbs gives the digest of the live texts read in order."""

    @initialize()
    def begin(self):
        self.memory = CompressedMemory.open("sqlite://", model="tiny")
        self.live: list[str] = []
        self.points: dict[str, list[str]] = {}
        self.forgotten: set[str] = set()
        self.count = 0

    @rule(seed=st.integers(0, 30))
    def ingest(self, seed):
        body = text(seed, 20)
        assert self.memory.ingest(body).created == (body not in self.live)
        if body not in self.live:
            self.live.append(body)
            self.forgotten.discard(body)

    @rule()
    def snapshot(self):
        self.count += 1
        self.memory.snapshot(str(self.count))
        self.points[str(self.count)] = list(self.live)

    @rule(data=st.data())
    def restore(self, data):
        if self.points:
            name = data.draw(st.sampled_from(sorted(self.points)))
            self.memory.restore(name)
            self.live = list(self.points[name])

    @rule(data=st.data())
    def forget(self, data):
        if self.live:
            chosen = data.draw(st.integers(0, len(self.live) - 1))
            document = self.memory.documents()[chosen]
            body = self.live[chosen]
            self.memory.forget(document.id)
            self.live.remove(body)
            # Texts of other branches are other documents, unless that very document was shared by the snapshot's line.
            self.points = {n: self._without(n, body, document.position) for n in self.points}

    def _without(self, name, body, position):
        held = {s.label: s.documents for s in self.memory.snapshots()}
        texts = self.points[name]
        return [t for t in texts if t != body] if held[name] != len(texts) else texts

    @invariant()
    def the_digest_is_that_of_the_live_texts(self):
        if not hasattr(self, "memory"):
            return
        with CompressedMemory.open("sqlite://", model="tiny") as fresh:
            for body in self.live:
                fresh.ingest(body)
            assert fresh.stats().digest == self.memory.stats().digest
        assert [self.memory.get(d.id).text for d in self.memory.documents()] == self.live

    def teardown(self):
        if hasattr(self, "memory"):
            report = self.memory.verify(replay=True)
            self.memory.close()
            assert report.ok, report.findings


TestModel = Model.TestCase
TestModel.settings = settings(
    max_examples=12, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
