"""The pages of the documentation, and the code in them, as a reader would run it: top to bottom, in one folder."""

from __future__ import annotations

import contextlib
import doctest
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = sorted(path for path in DOCS.rglob("*.md"))
RUN = ("python", "bash", "sh", "console", "shell")

_FENCE = re.compile(
    r"(?P<before>[^\n]*\n\n?)?^(?P<indent> *)```(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=indent)```[ \t]*$",
    re.MULTILINE | re.DOTALL,
)
_REASON = re.compile(r"<!-- not run: (.+?) -->")
_SETUP = re.compile(r"<!-- setup\n(.*?)-->", re.DOTALL)
_PRINTS = "This prints:"
_COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    """A fenced block: its code, where it begins, what the page says it prints, and why it is not run, if so."""

    page: Path
    line: int
    language: str
    code: str
    prints: str | None = None
    reason: str | None = None

    @property
    def where(self) -> str:
        """For messages."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def name(page: Path) -> str:
    """How tests call a page."""
    return page.relative_to(DOCS).with_suffix("").as_posix()


def blocks(page: Path) -> list[Block]:
    """The code of a page, in order. A `text` block after "This prints:" is what the block before it must print.

    A block that includes a file (`--8<--`) is left out: what it shows is tested where it lies.
    """
    text = page.read_text(encoding="utf-8")
    found: list[Block] = []
    for match in _FENCE.finditer(text):
        before = (match["before"] or "").strip()
        if before.endswith(_PRINTS) and match["language"] == "text":
            found[-1].prints = match["code"]
        elif match["language"] in RUN and not match["code"].strip().startswith("--8<--"):
            reason = _REASON.search(before)
            line = text.count("\n", 0, match.start("code"))
            found.append(Block(page, line, match["language"], match["code"], reason=reason[1] if reason else None))
    return found


def opened(page: Path) -> int:
    """How many blocks of code the page opens, counted another way: one that the pattern missed would not be run."""
    lines = page.read_text(encoding="utf-8").splitlines()
    starts = tuple(f"```{language}" for language in RUN)
    return sum(
        line.strip().startswith(starts) and not after.strip().startswith("--8<--") for line, after in pairwise(lines)
    )


@dataclass
class Reader:
    """Somebody who follows a page in an empty folder, with a home of their own."""

    folder: Path
    model: str
    namespace: dict[str, Any] = field(default_factory=lambda: {"__name__": "__main__"})

    def follow(self, page: Path, languages: tuple[str, ...]) -> None:
        """Run the page's blocks of these languages; AssertionError where one fails or prints something else."""
        with contextlib.chdir(self.folder):
            for setup in _SETUP.findall(page.read_text(encoding="utf-8")):
                self._shell(setup, f"setup of {page.name}")
            for block in blocks(page):
                if block.language in languages and block.reason is None:
                    self._run(block)

    def _run(self, block: Block) -> None:
        printed = self._python(block) if block.language == "python" else self._shell(block.code, block.where)
        if block.prints is not None and not doctest.OutputChecker().check_output(block.prints, printed, _COMPARE):
            raise AssertionError(f"{block.where} prints\n{printed}\nand the page says\n{block.prints}")

    def _python(self, block: Block) -> str:
        printed = io.StringIO()
        try:
            with contextlib.redirect_stdout(printed):
                exec(compile(block.code, block.where, "exec", dont_inherit=True), self.namespace)
        except Exception as error:
            raise AssertionError(f"{block.where} fails: {type(error).__name__}: {error}") from error
        return printed.getvalue()

    def _shell(self, code: str, where: str) -> str:
        ended = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", code],
            cwd=self.folder,
            env=self._environment(),
            capture_output=True,
            encoding="utf-8",
            timeout=600,
            check=False,
        )
        if ended.returncode:
            raise AssertionError(f"{where} ends with {ended.returncode}:\n{code}\n{ended.stdout}\n{ended.stderr}")
        return ended.stdout

    def _environment(self) -> dict[str, str]:
        """This process's, with `ttt-memory` on the path and a data directory of the reader's own."""
        programs = self.folder / ".bin"
        if not programs.exists():
            programs.mkdir()
            command = programs / "ttt-memory"
            command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ttt_memory "$@"\n', encoding="utf-8")
            command.chmod(0o755)
        kept = {key: value for key, value in os.environ.items() if not key.startswith("TTT_MEMORY_")}
        kept |= {key: value for key in ("TTT_MEMORY_CACHE",) if (value := os.environ.get(key))}
        paths = os.pathsep.join(str(ROOT / room) for room in ("", "kernels", "training", "adapters"))
        return kept | {
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": paths,
            "PYTHONUTF8": "1",
            "HOME": str(self.folder),
            "TTT_MEMORY_DATA": str(self.folder / ".data"),
            "TTT_MEMORY_MODEL": self.model,
        }


def commands(code: str) -> Iterator[list[str]]:
    """Arguments of every `ttt-memory` in a piece of shell."""
    for line in code.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("();<>|&"):
                if words[:1] == ["ttt-memory"]:
                    yield words[1:]
                words = []
            else:
                words.append(token)
