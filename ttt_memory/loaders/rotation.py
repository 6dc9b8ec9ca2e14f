"""Names of logs: `app.log.2.gz` is older than `app.log.1`, and that is older than `app.log`."""

from __future__ import annotations

import re

SYSTEM_LOGS = frozenset("syslog messages dmesg secure auth kern daemon maillog cron".split())
_ROTATED = re.compile(
    r"(?P<base>.+?)[.-](?P<mark>\d{1,4}|\d{8}(?:[-_.T]?\d{2,6})?|\d{4}-\d\d-\d\d(?:[-_T.]\d\d\S{0,12})?)"
)


def split(name: str) -> tuple[str, str, bool]:
    """A name without gzip and rotation, the mark of the rotation (empty for the live file), whether it is gzipped.

    The mark is taken off only where the rest is the name of a log: `app.log.1`, `syslog.1`, `app.log-20260131`.
    """
    gzipped = name.lower().endswith(".gz")
    inner = name[:-3] if gzipped else name
    found = _ROTATED.fullmatch(inner)
    if found and is_log(found["base"]):
        return found["base"], found["mark"], gzipped
    return inner, "", gzipped


def is_log(name: str) -> bool:
    """Whether a name without marks is that of a log."""
    return name.lower().endswith((".log", ".out", ".err")) or name.lower() in SYSTEM_LOGS


def order(name: str) -> tuple[str, int, int, str]:
    """Sorts names so that the files of one log come oldest first: dated ones, numbered ones downwards, the live one."""
    base, mark, _ = split(name)
    if not mark:
        return base, 2, 0, name
    return (base, 1, -int(mark), name) if len(mark) <= 4 else (base, 0, 0, mark)
