"""Token counts for embedders whose tokenizer is not at hand."""

from __future__ import annotations

import re

_PIECE = re.compile(r"\w{1,6}|[^\w\s]")
"""Six letters or a mark: common tokenizers make no more tokens than this of ordinary English."""


def count(text: str) -> int:
    """About how many tokens a text has."""
    return sum(1 for _ in _PIECE.finditer(text))


def spans(text: str) -> list[tuple[int, int]]:
    """(start, end) of those, in characters."""
    return [match.span() for match in _PIECE.finditer(text)]
