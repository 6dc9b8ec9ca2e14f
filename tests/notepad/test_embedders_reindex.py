"""Another embedder for a memory that has one: refused, then reindexed; whole before, during and after."""

from __future__ import annotations

import json
import threading

import anyio
import numpy as np
import pytest

from tests.memory.helpers import digest, open_tiny, tenant_bytes, text
from ttt_memory import AsyncCompressedMemory, CompressedMemory
from ttt_memory.cli import main
from ttt_memory.errors import ConflictError, ModelMismatchError
from ttt_memory.notepad.embedders import load_embedder

HASH = load_embedder("hash")


class Narrow:
    """The hashing embedder folded to fewer dimensions; shorter passages, too."""

    max_tokens = 40

    def __init__(self, dimensions: int = 64) -> None:
        self.dimensions = dimensions
        self.name, self.fingerprint = "narrow", f"narrow-{dimensions}"
        self.count_tokens, self.token_spans = HASH.count_tokens, HASH.token_spans

    def embed(self, texts):
        folded = HASH.embed(texts).reshape(len(texts), -1, self.dimensions).sum(1)
        return folded / np.maximum(np.linalg.norm(folded, axis=1, keepdims=True), 1e-9).astype(np.float32)


class StoppedError(Exception):
    pass


def stop(_):
    raise StoppedError


@pytest.fixture
def filled(tmp_path):
    with open_tiny(tmp_path) as memory:
        ids = [memory.ingest(text(n), learn=n == 0).document_id for n in range(4)]
        memory.snapshot("four")
    return ids


def test_another_embedder_is_refused_with_the_way_out(tmp_path, filled):
    with pytest.raises(ModelMismatchError, match="reindex") as caught:
        open_tiny(tmp_path, embedder=Narrow())
    assert "'hash', not by 'narrow'" in caught.value.what
    with open_tiny(tmp_path) as memory:
        memory.reindex(Narrow())
    with pytest.raises(ModelMismatchError, match="reindex") as caught:
        open_tiny(tmp_path)
    assert "has to be given" in caught.value.what
    with pytest.raises(ModelMismatchError, match="not by the same one as it is here"):
        open_tiny(tmp_path, embedder=Narrow(32))


def test_the_index_is_that_of_a_memory_that_had_the_embedder_from_the_start(tmp_path, filled):
    (tmp_path / "fresh").mkdir()
    with open_tiny(tmp_path / "fresh", embedder=Narrow()) as fresh:
        for n in range(4):
            fresh.ingest(text(n), learn=False)
        seen, steps = fresh, []
        with open_tiny(tmp_path) as memory:
            before = digest(memory)
            stats = memory.reindex(Narrow(), progress=steps.append)
            assert (stats.embedder, stats.digest) == ("narrow", before)
            assert stats.passages == seen.stats().passages
            for query in ("Note 2", "river stone", text(3)[:60]):
                found, expected = memory.search(query), seen.search(query)
                assert [(h.text, h.score) for h in found] == [(h.text, h.score) for h in expected]
            assert memory.verify(replay=True).ok
            memory.ingest(text(9), learn=False)
            assert memory.search("Note 9")[0].text.startswith("Note 9")
    assert [step.stage for step in steps] == ["reindex"] * len(steps)
    assert steps[-1].done == steps[-1].total == sum(len(text(n)) for n in range(4))
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    with open_tiny(tmp_path, embedder=Narrow()) as memory:
        assert memory.verify().ok
        copy = memory.fork("copy")
        assert copy.search("Note 9")[0].text.startswith("Note 9")
        copy.close()


@pytest.mark.parametrize("after", [0, 2, 5, -1])
def test_interrupted_it_changes_nothing(tmp_path, filled, after):
    steps = []

    def on_step(step):
        steps.append(step)
        if len(steps) > after >= 0 or (after == -1 and step.done == step.total):
            raise StoppedError

    with open_tiny(tmp_path) as memory:
        found = memory.search("river stone")
        stored = tenant_bytes(tmp_path, "a")
        with pytest.raises(StoppedError):
            memory.reindex(Narrow(), progress=on_step)
        assert tenant_bytes(tmp_path, "a") == stored
        assert memory.search("river stone") == found
        assert memory.verify().ok
        memory.reindex("hash")
        assert memory.search("river stone") == found


def test_search_goes_on_with_the_old_index_until_the_new_one_is_there(tmp_path, filled):
    waiting, go_on = threading.Event(), threading.Event()

    class Slow(Narrow):
        remote = True  # it waits off the lane on which the old embedder goes on

        def embed(self, texts):
            waiting.set()
            assert go_on.wait(30)
            return super().embed(texts)

    with open_tiny(tmp_path) as memory:
        expected = memory.search("Note 2")
        worker = threading.Thread(target=memory.reindex, args=(Slow(),))
        worker.start()
        assert waiting.wait(30)
        assert memory.search("Note 2") == expected
        assert memory.ask("What is note 2?").citations
        assert memory.stats().embedder == "hash"
        go_on.set()
        hits = [memory.search("Note 2") for _ in range(20)]
        worker.join()
        assert all(found[0].text.startswith("Note 2") for found in hits)
        assert memory.stats().embedder == "narrow"


def test_detached_documents_are_reindexed_and_come_back(tmp_path, filled):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(7), learn=False)
        memory.snapshot("five")
        memory.restore("four")
        memory.reindex(Narrow())
        memory.restore("five")
        assert memory.search("Note 7")[0].text.startswith("Note 7")
        assert memory.verify().ok
        memory.forget(filled[0])
        assert not any(hit.text.startswith("Note 0") for hit in memory.search("Note 0", limit=20))
        assert memory.verify().ok


def test_what_another_process_appends_meanwhile_is_taken_in_or_a_conflict(tmp_path, filled):
    def appending(number):
        def on_step(step):
            if not added:
                with open_tiny(tmp_path) as other:
                    added.append(other.ingest(text(number), learn=False).document_id)

        return on_step

    added = []
    with open_tiny(tmp_path, on_conflict="raise") as memory, pytest.raises(ConflictError):
        memory.reindex(Narrow(), progress=appending(20))
    added.clear()
    with open_tiny(tmp_path) as memory:
        memory.reindex(Narrow(), progress=appending(21))
        assert memory.search("Note 21")[0].document_id == added[0]
        assert memory.verify().ok


def test_other_handles_are_told_to_open_it_again(tmp_path, filled):
    with open_tiny(tmp_path) as memory, open_tiny(tmp_path) as other:
        assert other.search("Note 1")
        memory.reindex(Narrow())
        for verb in (lambda: other.search("Note 1"), lambda: other.ask("Note 1?"), lambda: other.ingest(text(30))):
            with pytest.raises(ModelMismatchError, match="reindex"):
                verb()
        assert memory.verify().ok


def test_opening_with_reindex_needs_nothing_of_the_old_embedder(tmp_path, filled):
    with open_tiny(tmp_path) as memory:
        memory.reindex(Narrow())
    with pytest.raises(StoppedError):
        open_tiny(tmp_path, embedder="hash", reindex=True, progress=stop)
    with open_tiny(tmp_path, embedder="hash", reindex=True) as memory:
        assert memory.search("Note 1")[0].text.startswith("Note 1")
        assert memory.verify().ok
    with open_tiny(tmp_path) as memory:
        assert memory.stats().embedder == "hash"


def test_awaited_and_imported(tmp_path, filled):
    async def reindexed():
        url = f"sqlite:///{tmp_path / 'memory.db'}"
        async with await AsyncCompressedMemory.open(url, tenant="a", model="tiny") as memory:
            steps = []
            stats = await memory.reindex(Narrow(), progress=steps.append)
            await memory.export(tmp_path / "archive.ttt")
            assert steps
            return stats

    assert anyio.run(reindexed).embedder == "narrow"
    url = f"sqlite:///{tmp_path / 'other.db'}"
    with CompressedMemory.import_(tmp_path / "archive.ttt", url, embedder="hash") as memory:
        assert memory.search("Note 1")[0].text.startswith("Note 1")
        assert memory.verify().ok


def test_the_command(tmp_path, filled, capsys, monkeypatch):
    with open_tiny(tmp_path) as memory:
        memory.reindex(Narrow())
    monkeypatch.delenv("TTT_MEMORY_EMBEDDER", raising=False)

    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["--db", str(tmp_path / "memory.db"), "--tenant", "a", *arguments])
        out, err = capsys.readouterr()
        return ended.value.code or 0, out, " ".join(err.split())

    code, _, err = run("search", "Note 1")
    assert code == 1
    assert "ttt-memory reindex --embedder minilm" in err
    assert run("reindex", "--embedder", "nonsense")[0] == 1
    assert "--base-url" in run("reindex", "--embedder", "openai:x")[2]
    assert "openai" in run("reindex", "--embedder", "other:x")[2]
    code, _, err = run("reindex", "--embedder", "hash")
    assert (code, "'hash'" in err) == (0, True)
    code, out, _ = run("reindex", "--json")
    assert (code, json.loads(out)["embedder"]) == (0, "hash")
    assert run("search", "Note 1")[0] == 0
    monkeypatch.setenv("TTT_MEMORY_EMBEDDER", "minilm")
    assert run("search", "Note 1")[0] == 1
