"""Every block of code in the documentation runs, and prints what the page says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import typer.main

from tests.docs.pages import PAGES, RUN, Block, Reader, blocks, commands, name, opened
from ttt_memory.cli import app

SHELL = tuple(language for language in RUN if language != "python")
WITH_PYTHON = [page for page in PAGES if any(b.language == "python" for b in blocks(page))]
WITH_SHELL = [page for page in PAGES if any(b.language in SHELL for b in blocks(page))]
ELSEWHERE = ("how-to/async", "how-to/loaders")
"""Pages that tests/cli/test_docs.py and tests/loaders/test_page.py run; here they are run on the real model only."""
ALL = [block for page in PAGES for block in blocks(page)]
QUICK = "quickstart"
"""The page whose shell blocks `make test` runs; each command is a process that loads PyTorch."""


@pytest.mark.parametrize("page", [page for page in WITH_PYTHON if name(page) not in ELSEWHERE], ids=name)
def test_python_runs(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pages open the default model; here that is the built-in one. `make test-all` takes the real one, below."""
    monkeypatch.setattr("ttt_memory.handle.DEFAULT_MODEL", "tiny")
    monkeypatch.setenv("TTT_MEMORY_DATA", str(tmp_path / ".data"))
    Reader(tmp_path, "tiny").follow(page, ("python",))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name)
def test_python_runs_on_the_default_model(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, smollm2: Any, minilm: Any
) -> None:
    monkeypatch.setenv("TTT_MEMORY_DATA", str(tmp_path / ".data"))
    Reader(tmp_path, smollm2.name).follow(page, ("python",))


@pytest.mark.parametrize(
    "page", [p if name(p) == QUICK else pytest.param(p, marks=pytest.mark.slow) for p in WITH_SHELL], ids=name
)
def test_shell_runs(page: Path, tmp_path: Path) -> None:
    Reader(tmp_path, "tiny").follow(page, SHELL)


def test_every_command_line_could_be_typed() -> None:
    """Also those that are not run: known commands and options, with values that parse."""
    root: Any = typer.main.get_command(app)
    seen = 0
    for block in ALL:
        if block.language in SHELL:
            for words in commands(block.code):
                seen += 1
                assert parses(root, words), f"{block.where}: ttt-memory {' '.join(words)}"
    assert seen > 10


def parses(command: Any, words: list[str]) -> bool:
    """Whether the arguments parse; nothing is run. Those that print and exit (`--help`) do."""
    parent, rest = None, words
    if words == ["--install-completion"]:  # Typer adds it where it is asked for
        return True
    try:
        while hasattr(command, "commands"):
            parent = command.make_context("ttt-memory", list(rest), parent=parent)
            _, command, rest = command.resolve_command(parent, [*parent._protected_args, *parent.args])
        command.make_context("command", list(rest), parent=parent)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
        return isinstance(error, typer.Exit)
    return True


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_no_block_is_overlooked(page: Path) -> None:
    """Fences in a language that is run are all found; few are left out, each with a reason."""
    text = page.read_text(encoding="utf-8")
    assert opened(page) == len(blocks(page))
    assert text.count("<!-- not run:") == sum(b.reason is not None for b in blocks(page))
    assert text.count("This prints:\n") == sum(b.prints is not None for b in blocks(page))


def test_few_blocks_are_not_run() -> None:
    left_out: list[Block] = [block for block in ALL if block.reason]
    assert len(left_out) <= len(ALL) // 6, [block.where for block in left_out]
    assert all(len(block.reason or "") > 10 for block in left_out)
