"""The user's cache folder: where weights live, and how a folder appears there all at once or not at all."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PARTIAL = ".partial-"
_ABANDONED_SECONDS = 24 * 3600


def cache_dir() -> Path:
    """Root of everything this package caches: `TTT_MEMORY_CACHE` if set, else the platform's user cache folder."""
    if configured := os.environ.get("TTT_MEMORY_CACHE"):
        return Path(configured).expanduser().absolute()
    from platformdirs import user_cache_path

    return user_cache_path("ttt_memory", appauthor=False)


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A temporary folder beside what it will become, on the same file system; removed in the end."""
    parent.mkdir(parents=True, exist_ok=True)
    _sweep(parent)
    folder = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(folder: Path, target: Path) -> bool:
    """Give a finished `folder` its name, durably and in one step.

    Returns False where another process has published `target` meanwhile: its folder stands, this one is left alone.
    """
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)
    try:
        folder.rename(target)
    except OSError:
        if target.is_dir():
            return False
        raise
    _sync(target.parent)
    return True


def discard(folder: Path) -> None:
    """Remove a folder so that no reader sees it half removed."""
    aside = Path(tempfile.mkdtemp(prefix=_PARTIAL, dir=folder.parent))
    try:
        folder.rename(aside / folder.name)
    except FileNotFoundError:
        pass
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _sync(path: Path) -> None:
    if os.name == "nt" and path.is_dir():  # Windows cannot open folders
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove what killed processes left behind, once it is surely abandoned."""
    for leftover in parent.glob(f"{_PARTIAL}*"):
        try:
            if time.time() - leftover.stat().st_mtime > _ABANDONED_SECONDS:
                shutil.rmtree(leftover, ignore_errors=True)
        except FileNotFoundError:
            continue
