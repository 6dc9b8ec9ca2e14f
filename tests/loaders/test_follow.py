"""Following a log: whole lines once each, through growth, rotation, truncation and restarts."""

import os
import queue
import threading
import time

import pytest

from tests.memory.helpers import open_tiny
from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders import follow

POLL = 0.01


class Follower:
    """Runs `follow` in a thread; what it gave is in `documents`."""

    def __init__(self, path, resume=None):
        self.stop, self.documents, self.arrived = threading.Event(), [], queue.Queue()
        self.thread = threading.Thread(target=self._run, args=(path, resume), daemon=True)
        self.error = None
        self.thread.start()

    def _run(self, path, resume):
        try:
            for document in follow(path, stop=self.stop, resume=resume, poll=POLL):
                self.documents.append(document)
                self.arrived.put(document)
        except InvalidDocumentError as error:
            self.error = error

    def text(self):
        return "".join(document.text for document in self.documents)

    def until(self, text):
        end = time.monotonic() + 30
        while self.text() != text:
            assert time.monotonic() < end, self.text()
            time.sleep(POLL)

    def finish(self):
        self.stop.set()
        self.thread.join(30)
        assert not self.thread.is_alive()
        return self.documents


@pytest.fixture
def following():
    started = []

    def start(path, resume=None):
        started.append(Follower(path, resume))
        return started[-1]

    yield start
    for follower in started:
        follower.finish()


def append(path, data):
    with path.open("ab") as out:
        out.write(data)


def test_only_whole_lines_are_given_and_each_once(tmp_path, following):
    path = tmp_path / "app.log"
    follower = following(path)  # it does not exist yet
    append(path, b"2026-02-03T10:00:00Z one\n2026-02-03T10:00:01Z two\npart")
    follower.until("2026-02-03T10:00:00Z one\n2026-02-03T10:00:01Z two\n")
    append(path, b"ial \xff\n")
    follower.until("2026-02-03T10:00:00Z one\n2026-02-03T10:00:01Z two\npartial \\xff\n")
    documents = follower.finish()
    assert len({document.stream for document in documents}) == 1
    assert documents[0].sequence == 0
    assert documents[0].observed_at.isoformat() == "2026-02-03T10:00:00+00:00"
    assert documents[-1].metadata["line"] == 3
    assert documents[-1].metadata["end"] == path.stat().st_size
    assert documents[-1].sequence == documents[-2].metadata["end"]


def test_rotation_loses_nothing(tmp_path, following):
    path = tmp_path / "app.log"
    expected = ""
    append(path, b"first 0\n")
    writer = path.open("ab")
    follower = following(path)
    follower.until("first 0\n")
    for generation in range(1, 4):
        path.rename(tmp_path / f"app.log.{generation}")
        writer.write(f"late {generation}\n".encode())  # the program has not noticed yet
        writer.close()
        writer = path.open("ab")
        writer.write(f"first {generation}\n".encode())
        writer.flush()
        expected += f"first {generation - 1}\nlate {generation}\n"
        follower.until(expected + f"first {generation}\n")
    writer.close()
    assert len({document.stream for document in follower.finish()}) == 4


def test_truncation_begins_anew(tmp_path, following):
    path = tmp_path / "app.log"
    append(path, b"start\nold old old\n")
    follower = following(path)
    follower.until("start\nold old old\n")
    path.write_bytes(b"start\nnew\n")  # the same first line, and yet another content
    follower.until("start\nold old old\nstart\nnew\n")
    streams = {document.stream for document in follower.finish()}
    assert len(streams) == 2
    places = [(document.stream, document.sequence) for document in follower.documents]
    assert len(set(places)) == len(places)


def test_long_lines_come_in_pieces_that_keep_characters_whole(tmp_path, following, monkeypatch):
    monkeypatch.setattr("ttt_memory.loaders.tail.LINE_BYTES", 10)
    path = tmp_path / "app.log"
    append(path, "ab🚢é漢🚢🚢🚢xyz\n".encode())
    following(path).until("ab🚢é漢🚢🚢🚢xyz\n")


def test_a_stop_is_heeded_and_reads_what_is_there(tmp_path):
    path = tmp_path / "app.log"
    path.write_bytes(b"one\ntwo")
    stop = threading.Event()
    stop.set()
    assert [document.text for document in follow(path, stop=stop)] == ["one\n"]
    assert list(follow(tmp_path / "none.log", stop=stop)) == []


def test_a_pipe_is_refused(tmp_path, following):
    os.mkfifo(tmp_path / "pipe.log")
    follower = following(tmp_path / "pipe.log")
    follower.thread.join(30)
    assert follower.error is not None


def test_a_restart_goes_on_where_the_memory_stands(tmp_path):
    path = tmp_path / "app.log"
    path.write_bytes(b"berth 1 free\nberth 2 free\n")
    stop = threading.Event()
    stop.set()

    with open_tiny(tmp_path) as memory:

        def end_of(stream):
            ends = (d.metadata["end"] for d in memory.documents(limit=1000) if d.stream == stream)
            return max(ends, default=0)

        def run():
            return memory.ingest(list(follow(path, stop=stop, resume=end_of)))

        assert len(run()) == 1
        assert run() == []
        append(path, b"berth 3 taken\n")
        (receipt,) = run()
        assert receipt.created
        assert memory.get(receipt.document_id).text == "berth 3 taken\n"
        assert "berth 3" in memory.search("berth 3 taken", limit=1)[0].text
        assert memory.verify().ok
