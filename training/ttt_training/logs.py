"""What a run tells: a JSON line per outer step (and the boards), a bar or plain lines."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ttt_training.boards import boards

LOG_FILE = "log.jsonl"
SECONDS_BETWEEN_LINES = 20.0


class Log:
    """`log.jsonl` of a run that has done `step` outer steps; later lines, of work that was lost, are dropped.

    `wandb` names a project of Weights & Biases that is told too.
    """

    def __init__(self, out: Path, step: int, *, wandb: str | None = None) -> None:
        self._path = out / LOG_FILE
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        kept = [line for line in lines if _step(line) is not None and (_step(line) or 0) <= step]
        if kept != lines:
            scratch = self._path.with_suffix(".tmp")
            scratch.write_text("".join(f"{line}\n" for line in kept), encoding="utf-8")
            os.replace(scratch, self._path)
        self._boards = boards(out, wandb=wandb)

    def add(self, record: Mapping[str, Any]) -> None:
        """One outer step; `record["step"]` counts from 1."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
        for board in self._boards:
            board.add(record)

    def close(self) -> None:
        """Flushes the boards."""
        for board in self._boards:
            board.close()


def _step(line: str) -> int | None:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return None  # the line that a killed process was writing


class Display:
    """Loss, tokens per second and the time left, on standard error: a bar in a terminal with rich, else plain lines."""

    def __init__(self, steps: int, step: int) -> None:
        self._steps, self._first, self._began, self._said = steps, step, time.monotonic(), 0.0
        self._bar: Any = None
        if sys.stderr.isatty() and find_spec("rich") is not None:
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            self._bar = Progress(TextColumn("{task.description}"), BarColumn(), console=Console(stderr=True))
            self._task = self._bar.add_task("training", total=steps, completed=step)
            self._bar.start()

    def __call__(self, record: Mapping[str, Any]) -> None:
        """After one outer step."""
        step, now = int(record["step"]), time.monotonic()
        left = (now - self._began) / max(1, step - self._first) * (self._steps - step)
        text = (
            f"step {step}/{self._steps}  loss {record['loss']:.4f}  {record['tokens_per_second']:.0f} tokens/s  "
            f"left {_duration(left)}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif now - self._said >= SECONDS_BETWEEN_LINES or step == self._steps:
            self._said = now
            self.say(text)

    def say(self, text: str) -> None:
        """A line of its own."""
        if self._bar is not None:
            self._bar.console.print(text)
        else:
            sys.stderr.write(text + "\n")
            sys.stderr.flush()

    def close(self) -> None:
        """Ends the bar."""
        if self._bar is not None:
            self._bar.stop()


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"
