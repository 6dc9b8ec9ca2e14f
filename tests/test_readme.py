"""The README does what it says: code runs, links lead somewhere, commands exist, speeds have a source."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"^```python\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


@pytest.fixture
def quick_model(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The README opens the default model; here that is the built-in one, and files land in a temporary folder."""
    monkeypatch.setattr("ttt_memory.handle.DEFAULT_MODEL", "tiny")
    monkeypatch.chdir(tmp_path)


def run(code: str) -> str:
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "README.md", "exec"), {"__name__": "__main__"})
    return printed.getvalue()


@pytest.mark.usefixtures("quick_model")
@pytest.mark.parametrize("code", PYTHON)
def test_python_blocks_run_when_pasted_and_run_again(code: str) -> None:
    assert run(code)
    assert run(code)


@pytest.mark.usefixtures("quick_model")
def test_the_ten_lines_answer_and_forget() -> None:
    answer, after = run(PYTHON[0]).splitlines()
    assert "It computed Bernoulli numbers." in answer
    assert "MOTH-1947" not in after


def test_the_ten_lines_are_about_ten() -> None:
    assert len([line for line in PYTHON[0].splitlines() if line.strip()]) <= 10


def test_links_lead_to_files_of_this_repository() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    missing = [link for link in links if "://" not in link and not (ROOT / link).exists()]
    assert not missing


def test_commands_are_targets_of_the_makefile() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    commands = set(re.findall(r"\bmake ([a-z-]+)", README))
    assert {"demo", "test", "bench"} <= commands
    assert commands <= targets


def test_speeds_stand_between_the_marks_of_measured_numbers() -> None:
    begin, end = README.index("<!-- numbers:begin"), README.index("<!-- numbers:end -->")
    rest = README[:begin] + README[end:]
    assert not re.search(r"\d\s*(tokens/s|tok/s|tokens per second|x faster|times faster)", rest)
