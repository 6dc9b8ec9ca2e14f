"""From a text to the passages that the ledger takes: cut, counted, embedded."""

from __future__ import annotations

from collections.abc import Generator
from typing import TYPE_CHECKING

import numpy as np

from ttt_memory.ledger.records import NewPassage
from ttt_memory.notepad import late
from ttt_memory.notepad.passages import cut
from ttt_memory.notepad.terms import count_terms

if TYPE_CHECKING:
    from ttt_memory.notepad.embedders import Embedder

BATCH = 16
"""Passages embedded between two steps, so that a waiting question goes first."""


def prepare(text: str, embedder: Embedder, *, heading: str = "") -> Generator[tuple[int, int], None, list[NewPassage]]:
    """Cut a text into passages, count their terms and embed them, each under the heading (`heading.py`).

    Returns what `TenantLedger.append` takes.

    Yields `(done, total)` passages between steps; the total is an estimate until all is cut.
    """
    spans: list[tuple[int, int]] = []
    for span in cut(text, embedder):
        spans.append(span)
        if len(spans) % 256 == 0:
            yield 0, len(spans) * len(text) // span[1]
    prepared: list[NewPassage] = []
    for first in range(0, len(spans), BATCH):
        yield first, len(spans)
        batch = [(start, end, text[start:end]) for start, end in spans[first : first + BATCH]]
        vectors, tokens = late.embed(embedder, [heading + body for _, _, body in batch])
        packed = [None] * len(batch) if tokens is None else [late.pack(found.vectors) for found in tokens]
        prepared.extend(
            NewPassage(start, end, count_terms(body), vector.tobytes(), words)
            for (start, end, body), vector, words in zip(batch, vectors.astype(np.float16), packed, strict=True)
        )
    yield len(spans), len(spans)
    return prepared
