"""Sentence and line boundaries with exact character offsets, in linear time, for any text.

Prose is cut at sentence ends; lines of chats, logs, lists and code are sentences of their own. A line break inside a
hard-wrapped paragraph is not a boundary: it is recognised because the next line's first word would not have fitted.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

MAX_CHARACTERS = 2_000
"""No sentence is longer: an endless line is cut at white space, or hard where there is none."""

_WRAP_MIN, _WRAP_MAX = 60, 100
_LINE = re.compile(r"[^\n\r]+")
_END = re.compile(r"[.!?…]+[\"'”’»)\]]*(?=\s)|[。！？｡]+[」』”’]*")
_MARKER = re.compile(  # bullets, numbers, times, log levels, "Speaker:", JSON's keys and code open a line of their own
    r"\s*(?:[-*+•>#|=~\[]|\d{1,3}[.)]\s|\(?\d{4}-\d\d|\d{1,2}:\d\d|(?:TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|FATAL|CRITICAL)\b"
    r"|[\w.@-]{1,32}(?: [\w.@-]{1,32}){0,2}:\s|[\"'][^\"'\n]{1,100}[\"']\s*:|\S*[{}();=]\s*$)"
)
_ABBREVIATION = re.compile(
    r"(?:\b(?:[A-Za-z]|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Gen|Col|Capt|Lt|Sgt|Rev|Hon|Gov|Sen|Rep|Mt|vs|cf|etc|approx|ca|al|No|Nos"
    r"|Fig|Figs|Eq|Vol|pp|Inc|Ltd|Co|Corp|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec)|\b[A-Za-z]\.[A-Za-z])\.$"
)


class Sentence(NamedTuple):
    """`text[start:end]`, without white space at its ends; `paragraph`: a blank line (or nothing) precedes it."""

    start: int
    end: int
    paragraph: bool


def sentences(text: str) -> Iterator[Sentence]:
    """Yield the sentences of `text` in order; together they cover every character that is not white space."""
    block: list[tuple[int, int]] = []
    previous = 0
    for line in _LINE.finditer(text):
        start, end = line.span()
        if not line.group().strip():
            continue
        if block and _blank_between(text, previous, start):
            yield from _paragraph(text, block)
            block = []
        block.append((start, end))
        previous = end
    if block:
        yield from _paragraph(text, block)


def _blank_between(text: str, start: int, end: int) -> bool:
    gap = text[start:end].replace("\r\n", "\n")
    return gap.count("\n") + gap.count("\r") > 1


def _paragraph(text: str, lines: list[tuple[int, int]]) -> Iterator[Sentence]:
    """Join hard-wrapped lines, then cut at sentence ends."""
    width = max(end - start for start, end in lines)
    paragraph, opened = True, lines[0][0]
    for (start, end), following in zip(lines, [*lines[1:], None], strict=True):
        if following and _wrapped(text[start:end].rstrip(), text[slice(*following)].lstrip(), width):
            continue
        for piece in _cut(text, opened, end):
            yield Sentence(*piece, paragraph)
            paragraph = False
        opened = following[0] if following else end


def _wrapped(line: str, following: str, width: int) -> bool:
    """Whether the line break after `line` only wraps a sentence, in a paragraph whose longest line has `width`."""
    if not _WRAP_MIN <= width <= _WRAP_MAX or line[-1] in ".!?:;}" or _MARKER.match(following):
        return False
    fits = len(line) + 1 + len(following.split(None, 1)[0]) <= width
    return not fits and (following[0].islower() or len(line) >= _WRAP_MIN)


def _cut(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Cut one logical line at its sentence ends."""
    cursor = start
    for match in _END.finditer(text, start, end):
        stop = match.end()
        if match.group()[0] == "." and _continues(text, cursor, stop, end):
            continue
        yield from _bounded(text, cursor, stop)
        cursor = stop
    yield from _bounded(text, cursor, end)


def _continues(text: str, start: int, stop: int, end: int) -> bool:
    """Whether the full stop that ends at `stop` belongs to an abbreviation or is followed by a small letter."""
    following = text[stop : min(stop + 8, end)].lstrip()[:1]
    return following.islower() or bool(_ABBREVIATION.search(text[max(start, stop - 12) : stop]))


def _bounded(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Trim white space, and cut what is longer than MAX_CHARACTERS at white space or hard."""
    while end - start > MAX_CHARACTERS:
        window = text[start : start + MAX_CHARACTERS]
        space = max(window.rfind(" "), window.rfind("\t"))
        stop = start + (space if space > MAX_CHARACTERS // 2 else MAX_CHARACTERS)
        yield from _trim(text, start, stop)
        start = stop
    yield from _trim(text, start, end)


def _trim(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    right = len(piece.rstrip())
    if left < right:
        yield start + left, start + right
