"""The product's own notepad, asked through its command line: training imports nothing of it."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ttt_memory.errors import TTTMemoryError


def ask_notepad(text: str, questions: Sequence[str], *, model: str) -> list[str]:
    """Answers (hybrid, as quotes: the default) of a memory that keeps `text` searchable and has not learned it.

    Raises:
        TTTMemoryError: the command failed; its own words are in `why`.
    """
    with tempfile.TemporaryDirectory(prefix="ttt-memory-needles-") as folder:
        source = Path(folder) / "haystack.txt"
        source.write_text(text, encoding="utf-8")
        place = ["--db", str(Path(folder) / "memory.db"), "--model", model, "--json"]
        _run("ingest", str(source), "--no-learn", *place)
        return [str(_run("ask", question, *place)["text"]) for question in questions]


def _run(*arguments: str) -> Any:
    command = [sys.executable, "-m", "ttt_memory", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise TTTMemoryError(f"`ttt-memory {arguments[0]}` failed.", why=(done.stdout + done.stderr)[-2000:])
    return json.loads(done.stdout)
