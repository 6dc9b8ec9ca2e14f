"""A row of a table or an object of a list as a document: `key: value` lines, its plain values as metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.moments import moment_of
from ttt_memory.types import Document

FIELD_CHARACTERS = 200  # longer values are text to search, not values to filter by
FIELDS = 64


def record_document(file: SourceFile, record: Mapping[str, Any], place: Mapping[str, int]) -> Document | None:
    """A document of one record; None where all its values are empty.

    Its short plain values are metadata `record`, for filters such as `{"record.status": "open"}`; the first usual
    key with a time (`created_at`, `timestamp`, ...) gives `observed_at`.
    """
    lines = [f"{key}: {plain(value)}" for key, value in record.items() if plain(value).strip()]
    if not lines:
        return None
    fields = {key: value for key, value in record.items() if _is_field(key, value)}
    kept = dict(list(fields.items())[:FIELDS])
    return file.document("\n".join(lines), {"record": kept or None, **place}, observed_at=moment_of(record))


def plain(value: Any) -> str:
    """A JSON value as text: strings as they are, lists and objects as JSON, null as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def _is_field(key: str, value: Any) -> bool:
    if isinstance(value, str):
        good = 0 < len(value) <= FIELD_CHARACTERS
    elif isinstance(value, float):
        good = math.isfinite(value)
    else:
        good = isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**63)
    return good and len(key) <= FIELD_CHARACTERS
