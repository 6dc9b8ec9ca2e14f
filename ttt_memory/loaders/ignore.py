"""Rules of `.gitignore` and `.ignore`, as git applies them. (The kept library for it is not permissively licensed.)"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import opened

FILES = (".gitignore", ".ignore")  # of one folder, the later overrules
ALWAYS = frozenset(("__pycache__", "node_modules"))
RULE_BYTES, RULE_CHARACTERS = 1 << 20, 1_000
ANY, NEVER = re.compile(r".", re.DOTALL), re.compile(r"(?!)")
P = TypeVar("P")


@dataclass(frozen=True)
class Rule:
    """One line.

    Attributes:
        segments: pattern of each part of the path; "**" stands for any number of parts.
        folder: it holds for folders only.
        negated: what it matches is taken in again.
    """

    segments: tuple[str, ...]
    folder: bool
    negated: bool

    def matches(self, parts: tuple[str, ...], is_folder: bool) -> bool:
        """Whether it matches a path, relative to the folder of the rule's file."""
        return (is_folder or not self.folder) and _match(self.segments, parts)


@dataclass(frozen=True)
class Rules:
    """The rules of a folder and of those above it, outermost first, each with its folder's depth below the root."""

    files: tuple[tuple[int, tuple[Rule, ...]], ...] = ()

    def entering(self, folder: Path, depth: int) -> Rules:
        """These and the rules that the folder holds itself."""
        own = tuple(rule for name in FILES for rule in _read(folder / name))
        return Rules((*self.files, (depth, own))) if own else self

    def ignores(self, parts: tuple[str, ...], is_folder: bool) -> bool:
        """Whether a path, in parts below the root, is left out: the last rule that matches decides."""
        for depth, rules in reversed(self.files):
            for rule in reversed(rules):
                if rule.matches(parts[depth:], is_folder):
                    return not rule.negated
        return False


def parse(line: str) -> Rule | None:
    """The rule of a line; None for a comment, an empty line, or what no path can match."""
    line = line.rstrip("\r\n")
    while line.endswith(" ") and not line.endswith("\\ "):
        line = line[:-1]
    if not line or line.startswith("#") or len(line) > RULE_CHARACTERS:
        return None
    negated = line.startswith("!")
    line = line[1:] if negated else line
    folder = line.endswith("/")
    line = line[:-1] if folder else line
    anchored = "/" in line
    segments = tuple(
        re.sub(r"\*{2,}", "*", part) if part != "**" else part for part in line.removeprefix("/").split("/")
    )
    if not line or any(not part for part in segments):
        return None
    if segments[-1] == "**":
        segments = (*segments[:-1], "*", "**")  # at the end it is all that is inside, and not the folder itself
    return Rule(segments if anchored else ("**", *segments), folder, negated)


def _read(path: Path) -> list[Rule]:
    if not path.is_file() or path.is_symlink():
        return []
    try:
        with opened(path, format="rules", suffix="", gzipped=False, links=False) as file:
            text = file.read(RULE_BYTES).decode("utf-8", "surrogateescape")
    except InvalidDocumentError:
        return []  # rules that cannot be read rule nothing, as in git
    return [rule for line in text.split("\n") if (rule := parse(line))]


One = str | re.Pattern[str]  # what one character must be


def _match(segments: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    pattern: list[str | None] = [None if segment == "**" else segment for segment in segments]
    return _glob(pattern, parts, _matches_part)


def _matches_part(segment: str, part: str) -> bool:
    return _glob(_compiled(segment), part, _is_one)


def _glob(pattern: Sequence[P | None], items: Sequence[str], one: Callable[[P, str], bool]) -> bool:
    """Whether the items follow the pattern, None standing for any number of them.

    Going back to the last None alone is enough, so that no pattern takes longer than its length times theirs.
    """
    at = item = 0
    star, mark = -1, 0
    while item < len(items):
        expected = pattern[at] if at < len(pattern) else None
        if at < len(pattern) and expected is None:
            star, mark = at, item
            at += 1
        elif expected is not None and one(expected, items[item]):
            at, item = at + 1, item + 1
        elif star >= 0:
            mark += 1
            at, item = star + 1, mark
        else:
            return False
    return all(rest is None for rest in pattern[at:])


def _is_one(expected: object, character: str) -> bool:
    return expected.fullmatch(character) is not None if isinstance(expected, re.Pattern) else expected == character


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> tuple[One | None, ...]:
    """A pattern of one part of a path, as fnmatch(3) reads it."""
    out: list[One | None] = []
    at = 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            out.append(None)
        elif character == "?":
            out.append(ANY)
        elif character == "\\" and at < len(pattern):
            out.append(pattern[at])
            at += 1
        elif character == "[" and (found := _bracket(pattern, at)):
            out.append(found[0])
            at = found[1]
        elif character in "[\\":
            return (NEVER,)  # git: an open bracket or a last backslash matches nothing
        else:
            out.append(character)
    return tuple(out)


def _bracket(pattern: str, at: int) -> tuple[re.Pattern[str], int] | None:
    """Expression of a bracket whose inside begins at `at`, and where it ends; None where it never ends."""
    start = at + 1 if pattern[at : at + 1] in ("!", "^") else at
    end = pattern.find("]", start + 1)
    if end < 0:
        return None
    inside = re.sub(r"([\[\]\\^&~|])", r"\\\1", pattern[start:end])
    try:
        return re.compile(f"[{'^' if start > at else ''}{inside}]", re.DOTALL), end + 1
    except re.error:
        return NEVER, end + 1  # a range that runs backwards
