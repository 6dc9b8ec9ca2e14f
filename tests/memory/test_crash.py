"""SIGKILL at random moments of ingest, forget and restore: what was promised is there, nothing is half done."""

import json
import multiprocessing
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.memory import worker
from tests.memory.helpers import digest, open_tiny, text
from ttt_memory import CompressedMemory

# A worker is a process of its own, but what it imports is loaded once: starting thirty took longer than all they do.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload([worker.__name__])


def run_and_kill(url: str, journal: Path, seed: int, delay: float, model: str) -> None:
    """Start a worker, let it open, kill it after `delay` seconds."""
    lines = len(journal.read_text().splitlines()) if journal.exists() else 0
    process = PROCESSES.Process(target=worker.main, args=(url, str(journal), seed, model), daemon=True)
    process.start()
    deadline = time.monotonic() + 240
    while not journal.exists() or len(journal.read_text().splitlines()) <= lines:
        assert process.is_alive(), "the worker ended by itself; what it wrote to stderr says why"
        assert time.monotonic() < deadline
        time.sleep(0.005)
    time.sleep(delay)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL


def expected(journal: Path):
    """Live texts by document id as promised, and the verb in flight when the process died."""
    live: dict[str, int] = {}
    points: dict[str, dict[str, int]] = {}
    forgotten: set[str] = set()
    pending = None
    for line in journal.read_text().splitlines():
        entry = json.loads(line)
        if "will" in entry or entry["did"] == "open":
            pending = entry if "will" in entry else pending
            continue
        pending = None
        if entry["did"] == "ingest":
            live[entry["id"]] = entry["number"]
        elif entry["did"] == "forget":
            live.pop(entry["id"], None)
            forgotten.add(entry["id"])
        elif entry["did"] == "snapshot":
            points[entry["label"]] = dict(live)
        elif entry["did"] == "restore":
            live = {id: n for id, n in points[entry["label"]].items() if id not in forgotten}
    return live, points, forgotten, pending


def check(memory: CompressedMemory, journal: Path) -> None:
    live, points, forgotten, pending = expected(journal)
    listed = {d.id for d in memory.documents()}
    allowed = [set(live)]
    if pending and pending["will"] == "forget":
        allowed.append(set(live) - {pending["id"]})
    elif pending and pending["will"] == "restore":
        allowed.append(set(points[pending["label"]]) - forgotten)
    elif pending and pending["will"] == "ingest":
        allowed.append(set(live) | (listed - set(live)))
        assert len(listed - set(live)) <= 1
    assert listed in allowed
    for info in memory.documents():
        body = memory.get(info.id).text
        number = int(body.split()[1].rstrip("."))
        if info.id in live:
            assert live[info.id] == number
        assert body in {text(number, words) for words in (30, 150, 600)}, "half a document"
        assert info.learned
        assert any(hit.document_id == info.id for hit in memory.search(f"Note {number}.", limit=20))
    report = memory.verify()
    assert report.ok, report.findings
    assert not memory.stats().relearning
    # Let the journal know what the process that died could not say.
    with journal.open("a") as out:
        for id in listed - set(live):
            number = int(memory.get(id).text.split()[1].rstrip("."))
            if pending and pending["will"] == "ingest":
                out.write(json.dumps({"did": "ingest", "number": number, "id": id}) + "\n")
        if pending and pending["will"] == "restore" and listed != set(live):
            out.write(json.dumps({"did": "restore", "label": pending["label"]}) + "\n")
        if pending and pending["will"] == "forget" and pending["id"] not in listed:
            out.write(json.dumps({"did": "forget", "id": pending["id"]}) + "\n")


@pytest.mark.timeout(400)
def test_thirty_kills_lose_nothing(tmp_path):
    url, journal = f"sqlite:///{tmp_path / 'memory.db'}", tmp_path / "journal"
    draw = random.Random(20261122)
    for kill in range(30):
        run_and_kill(url, journal, kill, draw.uniform(0.0, 0.7), "tiny")
        with open_tiny(tmp_path) as memory:
            check(memory, journal)
            before = digest(memory)
            if kill % 6 == 5:
                assert memory.verify(replay=True).ok
            texts = [memory.get(d.id).text for d in memory.documents()]
    (tmp_path / "fresh").mkdir()
    with open_tiny(tmp_path / "fresh") as fresh:  # killed and resumed = uninterrupted
        for body in texts:
            fresh.ingest(body)
        assert digest(fresh) == before


def test_a_crash_between_forgetting_and_relearning_shows_neither_text_nor_weights(tmp_path):
    canary = "kestrel-4471-omega"
    script = (
        "import os, sys\n"
        "from ttt_memory import CompressedMemory\n"
        "from ttt_memory.learner import Learner\n"
        f"memory = CompressedMemory.open('sqlite:///{tmp_path / 'memory.db'}', tenant='a', model='tiny')\n"
        f"memory.ingest('The word is {canary}. ' * 30)\n"
        "memory.ingest('Another text about rivers. ' * 30)\n"
        "memory.snapshot('with')\n"
        "Learner.catch_up = lambda self, progress=None: os._exit(9)\n"
        "memory.forget(memory.documents()[0].id)\n"
    )
    died = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert died.returncode == 9, died.stderr
    with open_tiny(tmp_path, replay=False) as memory:
        from ttt_memory.errors import RelearningError

        assert memory.stats().relearning
        assert memory.documents()[0].learned is False
        assert not any(canary in hit.text for hit in memory.search(canary))
        with pytest.raises(RelearningError):
            memory.ask("What is the word?", mode="weights")
        with pytest.raises(RelearningError):
            memory.score("rivers")
        assert memory.ask("What is the word?").notes
    for path in tmp_path.iterdir():
        assert canary.encode() not in path.read_bytes()
    with open_tiny(tmp_path) as memory:
        assert not memory.stats().relearning
        assert memory.verify(replay=True).ok
        assert memory.ask("rivers", mode="weights").citations == ()
