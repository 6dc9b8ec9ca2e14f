"""Every command as a process of its own, with good and with bad input: exit codes, JSON by the committed schemas."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_docs import commands
from tests.cli.test_json import valid

SECONDS = 300


def command(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    """`ttt-memory ...` in the environment that `own_memory` has set."""
    line = [sys.executable, "-m", "ttt_memory", *map(str, arguments)]
    done = subprocess.run(line, input=stdin, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert "Traceback" not in done.stderr
    return done


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_command_is_a_process_that_does_its_work_and_refuses_bad_input(notes, tmp_path, own_cache):
    archive, used = tmp_path / "memory.ttt", set()

    def good(name: str, *arguments: str, code: int = 0, stdin: str = ""):
        """Run a command with --json, and check what it prints against its schema."""
        used.add(name)
        done = command(*name.split(), *arguments, "--json", stdin=stdin)
        assert done.returncode == code, done.stderr
        value = json.loads(done.stdout)
        assert valid(name.replace(" ", "-"), value)
        return value

    def bad(name: str, *arguments: str, code: int = 1, stdin: str = "") -> None:
        """Run a command that must fail: with an error as JSON (1), or with its usage and nothing printed (2)."""
        used.add(name)
        done = command(*name.split(), *arguments, "--json", stdin=stdin)
        assert done.returncode == code, done.stdout + done.stderr
        if code == 1:
            assert valid("error", json.loads(done.stdout))
        else:
            assert not done.stdout
            assert "Usage:" in done.stderr

    bad("search", "kestrel-4471")  # there is no memory yet
    ids = [result["receipt"]["document_id"] for result in good("ingest", str(notes))["results"]]
    good("ingest", "-", "--stream", "house", stdin="Typed by hand.")
    bad("ingest", code=2)
    assert "kestrel-4471" in good("ask", "What is the door code?")["text"]
    bad("ask", " ")
    assert good("search", "kestrel-4471")[0]["text"]
    bad("search", "x", "--where", '{"a": {"$bad": 1}}')
    assert len(good("documents")) == 4
    bad("documents", "--limit", "many", code=2)
    assert good("get", ids[0])["text"]
    bad("get", "nope")
    good("snapshot", "before")
    bad("snapshot", "before")
    assert [snapshot["label"] for snapshot in good("snapshots")] == ["before"]
    bad("snapshots", "--tenant", "nobody")
    assert good("forget", ids[0], "--yes")["documents"] == [ids[0]]
    bad("forget", "nope", "--yes")
    bad("forget", ids[1], code=2)
    assert good("restore", "before")["documents"] == 3
    bad("restore", "nope")
    assert good("fork", "copy")["documents"] == 3
    bad("fork", "copy")
    assert len(good("log")) == 4
    bad("log", "--tenant", "nobody")
    assert good("stats")["documents"] == 3
    bad("stats", "--db", "mongodb://nowhere/x")
    assert good("verify", "--replay")["ok"]
    bad("verify", "--tenant", "nobody")
    good("reindex")
    bad("reindex", "--embedder", "nope")
    good("export", str(archive))
    bad("export", str(archive))
    assert good("import", str(archive), "--tenant", "new")["documents"] == 3
    bad("import", str(archive), "--tenant", "new")
    assert not good("doctor", code=1)["ok"], "the cache folder is empty"
    good("model list")
    good("model info", "tiny")
    bad("model info", "nope")
    for name, arguments in (("model pull", ["nope"]), ("model remove", ["nope"])):
        used.add(name)
        done = command(*name.split(), *arguments)
        assert (done.returncode, done.stdout) == (1, "")
        assert "What to do" in done.stderr
    bad("mcp", code=2)  # it serves in tests/adapters
    bad("chat", code=2)
    done = command("chat", stdin="What is the door code?\n/quit\n")
    assert done.returncode == 0
    assert "kestrel-4471" in done.stdout
    assert used == {name for name, _ in commands()}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's device that is always full")
def test_output_that_cannot_be_written_is_said_and_not_traced(tmp_path):
    line = [sys.executable, "-m", "ttt_memory", "--help"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, timeout=SECONDS, check=False)
    assert done.returncode == 1
    assert "No space left" in done.stderr
    assert "What to do" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
