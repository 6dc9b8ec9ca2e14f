"""When something was said, as files write it: ISO 8601 or seconds since 1970. Without a zone, UTC."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

KEYS = ("timestamp", "@timestamp", "time", "ts", "created_at", "createdAt", "create_time", "date", "datetime")
_LEADING = re.compile(r"\W{0,2}(\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?:Z|[+-]\d\d:?\d\d)?)")


def moment(value: Any) -> datetime | None:
    """The time that a JSON value or text means; None where it means none."""
    try:
        if isinstance(value, str):
            return utc(datetime.fromisoformat(value.strip().replace(",", ".")[:40]))
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and value > 1e8:
            return datetime.fromtimestamp(value / 1000 if value > 1e11 else value, UTC)
    except (ValueError, OverflowError, OSError):
        pass
    return None


def moment_of(record: Mapping[str, Any]) -> datetime | None:
    """The time of a record, from the first usual key that holds one."""
    return next((found for key in KEYS if key in record and (found := moment(record[key]))), None)


def line_moment(line: str) -> datetime | None:
    """The time of a line of a log: what it begins with, or a key of its JSON."""
    if found := _LEADING.match(line[:64]):
        return moment(found.group(1))
    if line.startswith("{"):
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            return None
        return moment_of(value)
    return None


def utc(value: datetime) -> datetime:
    """The same moment in UTC; without a zone it is taken as UTC. Raises OverflowError beyond the years 1 to 9999."""
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
