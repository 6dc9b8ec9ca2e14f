"""Rules of `.gitignore` and `.ignore`, as git applies them. (The kept library for it is not permissively licensed.)"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import opened

FILES = (".gitignore", ".ignore")  # of one folder, the later overrules
ALWAYS = frozenset(("__pycache__", "node_modules"))
RULE_BYTES, RULE_CHARACTERS, STARS = 1 << 20, 1_000, 8


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
    """The rule of a line; None for a comment, an empty line, or a pattern too complex to be meant."""
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
    if not line or any(not part for part in segments) or sum(part.count("*") for part in segments) > STARS:
        return None
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


def _match(segments: tuple[str, ...], parts: tuple[str, ...]) -> bool:
    if not segments:
        return not parts
    if segments[0] == "**":
        if len(segments) == 1:
            return bool(parts)  # a trailing "/**" is all that is inside
        return any(_match(segments[1:], parts[start:]) for start in range(len(parts)))
    return bool(parts) and _compiled(segments[0]).fullmatch(parts[0]) is not None and _match(segments[1:], parts[1:])


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    """A pattern of one part of a path, as fnmatch(3) reads it."""
    out, at = "", 0
    while at < len(pattern):
        character = pattern[at]
        at += 1
        if character == "*":
            out += ".*"
        elif character == "?":
            out += "."
        elif character == "\\" and at < len(pattern):
            out += re.escape(pattern[at])
            at += 1
        elif character == "[" and (found := _bracket(pattern, at)):
            out += found[0]
            at = found[1]
        elif character in "[\\":
            return re.compile(r"(?!)")  # git: an open bracket or a last backslash matches nothing
        else:
            out += re.escape(character)
    return re.compile(out, re.DOTALL)


def _bracket(pattern: str, at: int) -> tuple[str, int] | None:
    """Regular expression of a bracket whose inside begins at `at`, and where it ends; None where it never ends."""
    start = at + 1 if pattern[at : at + 1] in ("!", "^") else at
    end = pattern.find("]", start + 1)
    if end < 0:
        return None
    inside = re.sub(r"([\[\]\\^&~|])", r"\\\1", pattern[start:end])
    expression = f"[{'^' if start > at else ''}{inside}]"
    try:
        re.compile(expression)
    except re.error:
        return "(?!)", end + 1  # a range that runs backwards
    return expression, end + 1
