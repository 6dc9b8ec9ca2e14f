"""Who is in the middle of an upload, and whether that process still lives."""

from __future__ import annotations

import functools
import os
import socket
from pathlib import Path

FOREIGN_UPLOAD_MICROS = 24 * 3600 * 1_000_000


@functools.cache
def _host() -> str:
    return socket.gethostname().replace(":", "_")


def _started(pid: int) -> str:
    """Start time of a process in clock ticks since boot; '' where it is a zombie or the system does not tell."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in {"Z", "X"} else fields[19]


def this_process() -> str:
    """`host:pid:start time`: a number that is given out again does not pass for its former owner."""
    return f"{_host()}:{os.getpid()}:{_started(os.getpid())}"


def is_dead(owner: str, started_at: int, now: int) -> bool:
    """Whether what `owner` began at `started_at` (microseconds) will not be finished by it."""
    host, _, rest = owner.partition(":")
    pid, _, start = rest.partition(":")
    if host != _host() or os.name != "posix" or not pid.isdigit():
        return now - started_at > FOREIGN_UPLOAD_MICROS
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return start != _started(int(pid))
