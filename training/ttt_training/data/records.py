"""What a record of training data must be, and what happens to one that is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ttt_memory.errors import InvalidDocumentError

_QUOTED = 120


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be used: `where` is "file:line" (or the file), `why` the cause."""

    where: str
    why: str


Report = Callable[[BadRecord], None]


class BadRecords:
    """Counts what could not be used; past the limit the run ends before it learns from little.

    Args:
        limit: bad records that are skipped; one more raises InvalidDocumentError.
        report: called with each of them.
    """

    def __init__(self, limit: int, report: Report | None = None) -> None:
        self._limit, self._report = limit, report
        self.seen: list[BadRecord] = []

    def __call__(self, bad: BadRecord) -> None:
        """One more. Raises InvalidDocumentError past the limit."""
        self.seen.append(bad)
        if self._report is not None:
            self._report(bad)
        if len(self.seen) > self._limit:
            raise InvalidDocumentError(
                f"The training data has {len(self.seen)} records that cannot be used; {self._limit} are allowed.",
                why=f"the last one is {bad.where}: {bad.why}",
                fix="Mend the data, or allow more with --bad-records.",
                where=bad.where,
                limit=self._limit,
            )


@dataclass(frozen=True)
class Unusable:
    """Why a record has no text."""

    why: str


def text_of_line(line: bytes, field: str) -> str | Unusable:
    """The text of one line of JSON Lines."""
    try:
        record = json.loads(line)
    except UnicodeDecodeError:
        return Unusable("the line is not UTF-8")
    except (ValueError, RecursionError) as error:
        return Unusable(f"not JSON: {str(error)[:_QUOTED]}")
    if not isinstance(record, dict):
        return Unusable(f"a JSON {type(record).__name__}, not an object")
    return usable(record.get(field), field)


def usable(text: Any, field: str) -> str | Unusable:
    """`text` if it is a string with something in it."""
    if text is None:
        return Unusable(f"it has no {field!r}")
    if not isinstance(text, str):
        return Unusable(f"{field!r} is a {type(text).__name__}, not a string")
    return text if text.strip() else Unusable(f"{field!r} is empty")
