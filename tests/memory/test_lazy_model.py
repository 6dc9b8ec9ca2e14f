"""A memory that was opened to be read loads its base model when a verb needs it, and not to find passages."""

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tests.memory.helpers import open_tiny, text
from ttt_memory import CompressedMemory
from ttt_memory.errors import ModelMismatchError


@pytest.fixture
def loaded(monkeypatch):
    """Names of the models that were loaded since."""
    from ttt_memory import handle

    names, load = [], handle.load_model
    monkeypatch.setattr(handle, "load_model", lambda spec: (names.append(spec), load(spec))[1])
    return names


def test_finding_passages_loads_no_model(tmp_path, loaded):
    with open_tiny(tmp_path) as memory:
        memory.ingest("The door code is kestrel-4471.")
        digest = memory.stats().digest
    assert loaded == ["tiny"]
    with open_tiny(tmp_path, replay=False) as memory:
        assert "kestrel" in memory.search("kestrel-4471")[0].text
        assert "tiny" in repr(memory)
        assert memory.stats().digest == digest
        assert memory.ask("The door code?").learned_through == 1
        assert memory.documents()[0].surprise > 0
        assert loaded == ["tiny"]
        assert memory.score("The door code.") > 0
    assert loaded == ["tiny", "tiny"], "once, by the verb that needs it"
    with open_tiny(tmp_path) as memory:
        assert memory.stats().digest == digest


def test_what_another_process_forgot_meanwhile_is_not_in_the_weights_that_come_late(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1))
        gone = memory.ingest(text(2)).document_id
    with open_tiny(tmp_path, replay=False) as reader:
        assert reader.search("Note 2.")
        with open_tiny(tmp_path) as writer:
            writer.forget(gone)
            expected = writer.stats()
        assert reader.stats().digest == expected.digest
        assert reader.ask("Note?", mode="weights").learned_through == expected.learned_through
        reader.ingest(text(3))
        assert reader.verify(replay=True).ok


def test_another_model_under_the_old_name_is_refused_by_the_first_verb_that_needs_it(tmp_path):
    with open_tiny(tmp_path) as memory:
        memory.ingest("The door code is kestrel-4471.")
    with sqlite3.connect(tmp_path / "memory.db") as store:
        changed = store.execute(
            'UPDATE ttt_tenants SET model = replace(model, \'"fingerprint":"\', \'"fingerprint":"0\')'
        )
        assert changed.rowcount == 1
    with open_tiny(tmp_path, replay=False) as memory:
        assert memory.search("kestrel-4471")
        for verb in (memory.stats, memory.verify, lambda: memory.ingest("More."), lambda: memory.score("More.")):
            with pytest.raises(ModelMismatchError, match="rederive"):
                verb()
        assert [hit.document_id for hit in memory.search("door")]
    with pytest.raises(ModelMismatchError):
        open_tiny(tmp_path)


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's list of mapped files")
def test_the_real_weights_are_not_mapped_until_they_are_needed(tmp_path, smollm2_available, minilm):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with CompressedMemory.open(url, model=smollm2_available) as memory:
        memory.ingest("The door code is kestrel-4471.")
    code = (
        "from ttt_memory import CompressedMemory\n"
        f"mapped = lambda: any({smollm2_available!r} in line for line in open('/proc/self/maps'))\n"
        f"with CompressedMemory.open({url!r}, replay=False) as memory:\n"
        "    memory.search('kestrel-4471'), memory.ask('The door code?'), memory.documents(), memory.stats()\n"
        f"    memory.export({str(tmp_path / 'a.zip')!r}); print(mapped())\n"
        "    memory.score('The door code.'); print(mapped())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
