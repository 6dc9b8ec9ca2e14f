"""Where in its file a quote stands, in words: `handbook.pdf, page 12`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OF_LINES = frozenset(("text", "markdown", "code", "log"))


def place(metadata: Mapping[str, Any], text: str = "", start: int = 0) -> str:
    """Name of the file, and the page, slide, row, message or line; empty where the document came from no file.

    Args:
        metadata: of the document, as a loader made it.
        text: the document's; only needed for a line.
        start: where in the text the quote begins, in characters.
    """
    name = metadata.get("name")
    if not isinstance(name, str):
        return ""
    for unit in ("message", "page", "slide", "row"):
        if isinstance(metadata.get(unit), int):
            return f"{name}, {unit} {metadata[unit]}"
    first = metadata.get("line", 1)
    if metadata.get("format") in OF_LINES and isinstance(first, int) and text:
        return f"{name}, line {first + text.count(chr(10), 0, start)}"
    return f"{name}, line {first}" if isinstance(metadata.get("line"), int) else name
