"""One way of cleaning text for training and evaluation alike: hard-wrapped lines are joined, the words stay.

Books in plain text are wrapped at about 70 columns; a model trained on them learns to break lines. Whether a line was
cut by a wrapper shows in what follows: the next line's first word would not have fitted. So verse, tables, headings,
code and texts with one paragraph a line stay as they are.
"""

from __future__ import annotations

import itertools
import re

NORMALISER_VERSION = 1
"""Raise it when the same text must give another result; shards and evaluations record it."""

_WIDTHS = range(50, 101)
"""Columns at which texts are wrapped by hand or by tools."""
_MIXED_WIDTHS = range(60, 101)
"""The same for a text that also holds verse or code, which is narrower."""
_SLACK = 12
"""A typist may break this many columns early."""
_WRAPPED_SHARE = 0.7
"""In a text that is wrapped throughout at least this share of the lines inside paragraphs looks cut."""
_CODE_INDENT = 4
_LIST_ITEM = re.compile(r"(?:[-*+•·#|>]|\d+[.)]|[A-Za-z][.)]|\(\w{1,3}\))\s")
_RULE = re.compile(r"[\W_]+$")
_FENCE = ("```", "~~~")


def normalise(text: str) -> str:
    """`text` with hard-wrapped lines joined, line ends as \\n, no trailing blanks, and at most one empty line in a row.

    No word is added, dropped or changed; a line that ends with a hyphen or dash is joined without a space.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").replace("\f", "\n")
    lines = [line.rstrip() for line in text.split("\n")]
    width, mixed = _wrapping(lines)
    out: list[str] = []
    fenced = False
    for filled, group in itertools.groupby(lines, key=bool):
        if not filled:
            out += [""] if out else []
            continue
        paragraph = list(group)
        joined = width and not (mixed and not all(_cut(*pair, width) for pair in itertools.pairwise(paragraph)))
        previous = ""
        for line in paragraph:
            if joined and not fenced and _continues(previous, line, width):
                out[-1] += ("" if previous.endswith(("-", "—")) else " ") + line.lstrip()
            else:
                out.append(line)
            fenced ^= line.lstrip().startswith(_FENCE)
            previous = line
    return "\n".join(out).strip("\n")


def _wrapping(lines: list[str]) -> tuple[int, bool]:
    """Column at which the text was wrapped, 0 if it was not, and whether that holds for a part of it only."""
    pairs = [(line, after) for line, after in itertools.pairwise(lines) if line and after]
    if not pairs:
        return 0, False
    lengths = sorted(len(line) for line, _ in pairs)
    width = lengths[int(0.95 * (len(lengths) - 1))]
    mixed = sum(_cut(line, after, width) for line, after in pairs) < _WRAPPED_SHARE * len(pairs)
    return (width if width in (_MIXED_WIDTHS if mixed else _WIDTHS) else 0), mixed


def _cut(line: str, after: str, width: int) -> bool:
    """Whether the first word of `after` would not have fitted behind `line`."""
    return len(line) + 1 + len(after.split(None, 1)[0]) > width - _SLACK


def _continues(line: str, after: str, width: int) -> bool:
    """Whether `after` is the rest of a paragraph that was cut behind `line`."""
    if not line or not _cut(line, after, width):
        return False
    indent, start = len(line) - len(line.lstrip()), after.lstrip()
    deeper = len(after) - len(start) - indent
    if indent >= _CODE_INDENT or deeper >= _CODE_INDENT or (deeper > 0 and not _LIST_ITEM.match(line.lstrip())):
        return False
    return not (_LIST_ITEM.match(start) or start.startswith(_FENCE) or _RULE.match(start) or _RULE.match(line))
