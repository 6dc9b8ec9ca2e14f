"""A user at a terminal: commands in this process where starting one would take longer than running it."""

import io
import json
import sys
from typing import Any, NamedTuple

import pytest

from ttt_memory.cli import main


class Ended(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def words(self) -> str:
        return " ".join(self.err.split())


@pytest.fixture(autouse=True)
def own_memory(tmp_path, monkeypatch):
    """Every test has a store of its own, named by the environment."""
    monkeypatch.setenv("TTT_MEMORY_DB", str(tmp_path / "memory.db"))
    monkeypatch.setenv("TTT_MEMORY_MODEL", "tiny")
    monkeypatch.setenv("TTT_MEMORY_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("TTT_MEMORY_TENANT", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def run(capsys, monkeypatch):
    """`run("ask", "...")` runs `ttt-memory ask ...`; `stdin` is what is piped in, or `typed`."""

    def command(*arguments: str, stdin: bytes | str = b"", typed: bool = False) -> Ended:
        data = stdin.encode() if isinstance(stdin, str) else stdin
        reader = io.TextIOWrapper(io.BytesIO(data))
        monkeypatch.setattr(reader, "isatty", lambda: typed)
        monkeypatch.setattr(sys, "stdin", reader)
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return Ended(ended.value.code or 0, out, err)

    return command


@pytest.fixture
def notes(tmp_path):
    """Three files to remember."""
    folder = tmp_path / "notes"
    (folder / "deep").mkdir(parents=True)
    (folder / "harbour.md").write_text("The harbour is closed on Mondays.\nThe door code is kestrel-4471.\n")
    (folder / "lantern.txt").write_text("The lantern of the market burns copper oil. " * 8)
    (folder / "deep" / "orchard.md").write_text("Every winter the orchard rests below the bridge. " * 8)
    return folder
