"""Work that a stop cannot lose: every finished piece is a line of a file, and a second run reads it there."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ttt_memory.errors import InvalidInputError


class Progress:
    """Finished pieces of one measurement, and how long the rest will take.

    The file is JSON Lines, `{"key": {...}, "value": {...}}`. A line that a kill left unfinished is dropped.

    Args:
        path: the file; its folder is made.
        total: cost of all pieces, in any unit (tokens), for the time left.

    Raises:
        InvalidInputError: a finished line of the file is not what this class writes.
    """

    def __init__(self, path: Path, total: float) -> None:
        self._path, self._left, self._spent, self._worked = path, total, 0.0, 0.0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._done = self._load()

    def once(self, key: dict[str, Any], label: str, cost: float, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What `work` gives, from the file if it was done before; else done now and kept. Prints one line.

        `work` may itself call this: `cost` is with that of its parts. The value's `seconds` are of the call that
        finished it.
        """
        name = _canonical(key)
        if name in self._done:
            self._left -= cost
            return self._done[name]
        started, left, spent, worked = time.perf_counter(), self._left, self._spent, self._worked
        value = work() | {"seconds": round(time.perf_counter() - started, 2)}
        self._left, self._spent, self._worked = left - cost, spent + value["seconds"], worked + cost  # parts are within
        self._append({"key": key, "value": value})
        self._done[name] = value
        remaining = max(0.0, self._left) * self._spent / self._worked
        sys.stderr.write(f"{label}: {value['seconds']:.0f} s, {_minutes(remaining)} left\n")
        sys.stderr.flush()
        return value

    def passed(self, cost: float) -> None:
        """So much of the piece under way is behind it and kept elsewhere: no part of the time left."""
        self._left -= cost

    def _append(self, row: dict[str, Any]) -> None:
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, allow_nan=False) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _load(self) -> dict[str, dict[str, Any]]:
        if not self._path.exists():
            return {}
        content = self._path.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if whole != content:
            self._path.write_bytes(whole)
        try:
            rows = [json.loads(line) for line in whole.decode("utf-8").splitlines()]
            return {_canonical(row["key"]): row["value"] for row in rows}
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidInputError(
                f"{self._path.name} is damaged.", why=repr(error), fix="Delete it to measure anew."
            ) from error


def beside(out: Path) -> Path:
    """The progress file of a result file."""
    return out.with_suffix(".progress.jsonl")


def _canonical(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True, separators=(",", ":"))


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
