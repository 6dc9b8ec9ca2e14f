"""Folders: every file that a loader reads, in an order that does not change, minus what is ignored."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.ignore import ALWAYS, Rules
from ttt_memory.loaders.rotation import order


def files(root: Path) -> Iterator[Path]:
    """Regular files below a folder, sorted by name, the files of one log oldest first.

    Left out: hidden names, what `.gitignore` and `.ignore` files in the folder ignore, `__pycache__`, `node_modules`,
    and symbolic links: what they point to is either read under its own name or lies outside of what was named.

    Raises InvalidDocumentError where a folder cannot be listed.
    """
    stack = [(root, (), Rules())] if root.is_dir() else []
    pending: list[tuple[Path, tuple[str, ...], Rules] | Path] = list(stack)
    while pending:
        item = pending.pop()
        if isinstance(item, Path):
            yield item
            continue
        folder, parts, above = item
        rules = above.entering(folder, len(parts))
        inside: list[tuple[Path, tuple[str, ...], Rules] | Path] = []
        for entry in _entries(folder):
            below = (*parts, entry.name)
            is_folder = entry.is_dir(follow_symlinks=False)
            if entry.name.startswith(".") or entry.name in ALWAYS or rules.ignores(below, is_folder):
                continue
            if is_folder:
                inside.append((folder / entry.name, below, rules))
            elif entry.is_file(follow_symlinks=False):
                inside.append(folder / entry.name)
        pending.extend(reversed(inside))


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: order(entry.name))
    except OSError as error:
        raise InvalidDocumentError(
            f"Cannot list {folder}.", why=error.strerror or str(error), path=str(folder)
        ) from error
