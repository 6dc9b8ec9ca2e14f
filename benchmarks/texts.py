"""What the benchmark reads: documentation that every Python carries, so that nothing is downloaded for it."""

from __future__ import annotations

import importlib
import pydoc
from collections.abc import Iterator

import numpy as np

from ttt_memory.model.loaded import Tokenizer

MODULES = (
    *("argparse", "pathlib", "json", "sqlite3", "statistics", "logging", "decimal", "difflib", "csv", "shelve"),
    *("configparser", "functools", "contextlib", "tempfile", "zipfile", "calendar", "textwrap", "heapq", "secrets"),
)


def pages() -> Iterator[str]:
    """The `pydoc` pages of MODULES, together about 130,000 SmolLM2 tokens."""
    for name in MODULES:
        yield pydoc.plain(pydoc.render_doc(importlib.import_module(name)))


def tokens(tokenizer: Tokenizer, count: int) -> np.ndarray:
    """The first `count` token ids [count] int32 of those pages, one after the other."""
    found = np.concatenate([tokenizer.encode(page) for page in pages()])
    if len(found) < count:
        raise ValueError(f"The pages hold {len(found)} tokens, {count} were asked for.")
    return found[:count]


def documents(tokenizer: Tokenizer, count: int, size: int) -> list[str]:
    """Texts of about `size` tokens each that together hold about `count`."""
    ids = tokens(tokenizer, count)
    return [tokenizer.decode(ids[first : first + size]) for first in range(0, count, size)]
