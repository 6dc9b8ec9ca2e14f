"""Real processes: a terminal for chat and progress bars, Ctrl-C, pipes that close."""

import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import psutil
import pytest

from tests.memory.helpers import text
from ttt_memory import CompressedMemory

COMMAND = [sys.executable, "-m", "ttt_memory"]
SECONDS = 90


class Terminal:
    """A command on a pseudo-terminal of its own."""

    def __init__(self, *arguments: str) -> None:
        pid, self.fd = pty.fork()
        if pid == 0:
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # tests in the background have it ignored, and hand that on
            os.environ.update(TERM="xterm", COLUMNS="150", LINES="40")
            os.execv(sys.executable, [*COMMAND, *arguments])
        self.pid = pid
        self.seen = ""

    def type(self, keys: str, *, at_once: bool = False) -> None:
        if not at_once:
            self._wait_for_idling()  # as a person would: a signal between the prompt and the reading of it is missed
        os.write(self.fd, keys.encode())

    def _wait_for_idling(self) -> None:
        process, start = psutil.Process(self.pid), time.monotonic()
        used, before = process.cpu_times(), None
        while used != before:
            assert time.monotonic() - start < SECONDS, self.seen
            time.sleep(0.3)
            used, before = process.cpu_times(), used

    def until(self, pattern: str) -> str:
        """Wait for a pattern in what comes from now on; returns all up to there, without escape sequences."""
        start = time.monotonic()
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() - start < SECONDS, self.seen
            if not self._read():
                found = re.search(pattern, self.seen)
                assert found, self.seen
                break
        before, self.seen = self.seen[: found.end()], self.seen[found.end() :]
        return before

    def end(self) -> tuple[int, str]:
        """Wait until it ends: exit code and what it printed last."""
        while self._read():
            pass
        os.close(self.fd)
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1]), self.seen

    def _read(self) -> bool:
        ready, _, _ = select.select([self.fd], [], [], SECONDS)
        assert ready, self.seen
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other end is closed
            return False
        self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode(errors="replace"))
        return bool(data)


@pytest.fixture
def memory_of(tmp_path):
    def opened() -> CompressedMemory:
        return CompressedMemory.open(f"sqlite:///{tmp_path / 'memory.db'}", model="tiny", replay=False)

    return opened


def test_chat_in_a_terminal(memory_of):
    with memory_of() as memory:
        memory.ingest("The lantern of the market burns copper oil.")
    terminal = Terminal("chat")
    assert "1 document" in terminal.until("> ")
    terminal.type("/help\n")
    assert "/remember TEXT" in terminal.until("> ")
    terminal.type("What does the lantern burn?\n")
    answer = terminal.until(r"\n> ")
    assert "copper oil" in answer
    assert "[1] document" in answer
    terminal.type("/remember The door code is kestrel-4471.\n")
    assert "Remembered (" in terminal.until(r"\n> ")
    terminal.type("/remember The door code is kestrel-4471.\n")
    assert "knew that" in terminal.until(r"\n> ")
    terminal.type("What is the door code?\n")
    assert "kestrel-4471" in terminal.until(r"\[1\]")
    terminal.until(r"\n> ")
    terminal.type("/nonsense\n")
    assert "/help lists" in terminal.until(r"\n> ")
    terminal.type("/remember\n")
    assert "Say what" in terminal.until(r"\n> ")
    terminal.type("/quit\n")
    code, rest = terminal.end()
    assert code == 0, rest
    with memory_of() as memory:
        assert len(memory.documents()) == 2, "answers and questions are not remembered"


def test_ctrl_c_stops_an_answer_and_leaves_at_the_prompt(memory_of):
    with memory_of() as memory:
        memory.ingest(text(1, 300))
    terminal = Terminal("chat", "--answerer", "generate", "--mode", "notepad")
    terminal.until("> ")
    terminal.type("What does note 1 say?\n")
    terminal.until(r"say\?\r\n.")  # the answer has begun
    terminal.type("\x03", at_once=True)
    assert "(stopped)" in terminal.until(r"\n> ")
    terminal.type("/remember Something else.\n")
    assert "Remembered" in terminal.until(r"\n> ")
    terminal.type("\x03")
    code, rest = terminal.end()
    assert code == 130
    assert "Remembered in this conversation: 1 text." in rest


def test_progress_in_a_terminal_and_a_clean_stop(tmp_path, memory_of):
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.txt").write_text(text(ord(name), {"a": 40, "b": 12000, "c": 40}[name]))
    terminal = Terminal("ingest", "a.txt", "b.txt", "c.txt")
    drawn = terminal.until(r"b\.txt: learning, loss \d.*?/s")
    assert re.search(r"[0-9a-f]{32}  a\.txt", drawn)
    assert re.search(r"[\d,]+/[\d,]+ tokens", drawn)
    assert re.search(r"\d:\d\d", terminal.until(r"\d:\d\d")), "time left"
    terminal.type("\x03", at_once=True)
    code, rest = terminal.end()
    assert code == 130
    assert "Stopping after the step in hand" in rest
    assert "Stopped. Kept: 1 document" in rest
    assert "stored and searchable" in rest
    with memory_of() as memory:
        first, second = memory.documents()
        assert first.learned
        assert not second.learned
        assert memory.get(second.id).text == (tmp_path / "b.txt").read_text()
        assert memory.verify().ok


def test_a_sigint_in_a_pipe_is_reported_as_json(tmp_path, memory_of):
    from jsonschema import validate

    from tests.cli.test_json import FOLDER, json

    (tmp_path / "big.txt").write_text(text(7, 12000))
    process = subprocess.Popen(
        [*COMMAND, "ingest", "big.txt", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with memory_of() as memory:
        start = time.monotonic()
        while not memory.documents():
            assert process.poll() is None
            assert time.monotonic() - start < SECONDS
            time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=SECONDS)
    assert process.returncode == 130, err
    report = json.loads(out)
    validate(report, json.loads((FOLDER / "ingest.json").read_text()))
    assert report["interrupted"]
    assert report["results"] == []
    with memory_of() as memory:
        assert report["stored_unlearned"] == [d.id for d in memory.documents()]
        assert memory.verify().ok


def test_following_a_log_until_ctrl_c(tmp_path, memory_of):
    log = tmp_path / "app.log"
    log.write_text("2026-01-31 08:00:00 started\n")
    for expected, line in ((1, None), (2, "2026-01-31 09:00:00 the pump failed\n")):
        process = subprocess.Popen([*COMMAND, "ingest", "--follow", "app.log"], stderr=subprocess.PIPE)
        if line:
            with log.open("a") as out:
                out.write(line)
        start = time.monotonic()
        with memory_of() as memory:
            while len([d for d in memory.documents() if d.learned]) < expected:
                assert process.poll() is None
                assert time.monotonic() - start < SECONDS
                time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=SECONDS)
        assert process.returncode == 0, err
        assert b"1 document," in err, "a second run does not repeat the first"
    with memory_of() as memory:
        first, second = memory.documents()
        assert first.stream == second.stream
        assert "pump" in memory.search("pump")[0].text


def test_forgetting_in_a_terminal_asks_first(memory_of):
    with memory_of() as memory:
        kept = memory.ingest(text(1)).document_id
    for reply, code, left in (("\x03", 130, 1), ("y\n", 0, 0)):
        terminal = Terminal("forget", kept)
        assert "1 document" in terminal.until(r"Forget\?.*: ")
        terminal.type(reply)
        assert terminal.end()[0] == code
        with memory_of() as memory:
            assert len(memory.documents()) == left


def test_a_reader_that_leaves_early_and_the_shell(memory_of, tmp_path):
    with memory_of() as memory:
        memory.ingest(text(1, 9000), learn=False)
        wanted = memory.documents()[0].id
    shell = f"{sys.executable} -m ttt_memory get {wanted} | head -c 10; echo; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Note 1. ")
    assert "Traceback" not in done.stderr
    pressed = {"_TTT_MEMORY_COMPLETE": "complete_bash", "COMP_WORDS": "ttt-memory sn", "COMP_CWORD": "1"}
    done = subprocess.run(COMMAND, env={**os.environ, **pressed}, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["snapshot", "snapshots"]
