"""Who said it and when: what is read before a passage when it is embedded, but is no part of its text.

"I went there last week" is about Ada and May where Ada wrote it in May; its own words do not say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

SPEAKERS = ("speaker", "author", "from", "sender", "role")
"""Metadata fields that say who wrote a text, the most telling first."""
MONTHS = "January February March April May June July August September October November December".split()
"""English names, whatever the locale is."""
MAX_NAME = 60


def heading(metadata: Mapping[str, Any], observed_at: datetime | None, ingested_at: datetime | None = None) -> str:
    """Return what precedes a document's passages: "[8 May 2023] Caroline: ", or as much as is known.

    Args:
        metadata: the document's.
        observed_at: when it was said, if anybody told.
        ingested_at: of a stored document; where the two are equal, nobody told.
    """
    name = speaker(metadata)
    if observed_at == ingested_at:
        observed_at = None
    date = f"[{observed_at.day} {MONTHS[observed_at.month - 1]} {observed_at.year}] " if observed_at else ""
    return date + (f"{name}: " if name else "")


def speaker(metadata: Mapping[str, Any]) -> str:
    """Return the name of whoever wrote a document, as far as its metadata say it."""
    found = (metadata.get(field) for field in SPEAKERS)
    name = next((value for value in found if isinstance(value, str) and value.strip()), "")
    return " ".join(name.split())[:MAX_NAME]
