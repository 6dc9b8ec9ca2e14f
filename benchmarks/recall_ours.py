"""The memory's own path of the recall benchmark: what a user ingests, and what `search` gives back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from recall_sets import Pool, Question, Unit

from ttt_memory import CompressedMemory, Document
from ttt_memory.notepad.heading import heading

if TYPE_CHECKING:
    from recall_cache import CachedMiniLM

LIMITS = (30, 100)
"""Passages asked for: more where the first ones are of too few units."""
UNITS = 10


@dataclass
class Ours:
    """One pool in a memory.

    Attributes:
        ranked: for each question the units found, best first.
        passages: unit and text of every passage of the notepad under its heading, in order of id.
        vectors: theirs, [N, 384].
        token_bytes: stored for late interaction, in all.
        seconds: of each search on the clock and on the processor, the question's embedding left out.
    """

    ranked: list[list[str]]
    passages: list[tuple[str, str]]
    vectors: NDArray[np.float32]
    token_bytes: int
    seconds: list[tuple[float, float]]


def run(pool: Pool, folder: Path, embedder: CachedMiniLM) -> Ours:
    """Ingest a pool into a new memory as a user would, and ask its questions."""
    url = f"sqlite:///{folder / 'memory.db'}"
    with CompressedMemory.open(url, tenant=pool.name, model="tiny", embedder=embedder) as memory:
        keys = ingest(memory, pool.units)
        embedder.embed([question.text for question in pool.questions])
        ranked, seconds = [], []
        for question in pool.questions:
            started = time.perf_counter(), time.process_time()
            hits = memory.search(question.text, limit=LIMITS[0])
            seconds.append((time.perf_counter() - started[0], time.process_time() - started[1]))
            found = [(keys[hit.document_id], hit.text) for hit in hits]
            if len({unit for unit, _ in found}) < UNITS:
                found = [(keys[hit.document_id], hit.text) for hit in memory.search(question.text, limit=LIMITS[1])]
            ranked.append(units(question, found))
        tenant = memory._handle.tenant  # the rivals get the very passages and vectors that are searched here
        stored = tenant.passage_vectors()
        texts = tenant.passages(stored.ids.tolist())
        held = tenant.token_vectors(stored.ids.tolist())
        passages = [(keys[p.document_id], heading(p.metadata, p.observed_at, p.ingested_at) + p.text) for p in texts]
        vectors = stored.vectors.astype(np.float32)
        return Ours(ranked, passages, vectors, sum(map(len, held.values())), seconds)


def ingest(memory: CompressedMemory, texts: Iterable[Unit]) -> dict[str, str]:
    """Ingest units, not learned. Returns the unit of each document."""
    keys: dict[str, str] = {}
    for unit in texts:
        document = Document(
            text=unit.text,
            stream=unit.stream,
            sequence=unit.sequence,
            observed_at=unit.observed_at,
            metadata=dict(unit.metadata),
        )
        keys.setdefault(memory.ingest(document, learn=False).document_id, unit.key)
    return keys


def units(question: Question, found: Sequence[tuple[str, str]]) -> list[str]:
    """Return the units of passages found, each once, best first; a passage without the quote counts as another unit."""
    named = (
        unit if question.quote is None or question.quote in text else f"{unit} without the quote {place}"
        for place, (unit, text) in enumerate(found)
    )
    return list(dict.fromkeys(named))[:UNITS]


def recall(questions: Sequence[Question], ranked: Sequence[Sequence[str]]) -> dict[str, float]:
    """Mean share of a question's evidence among its first 1, 5 and 10 units, in per cent."""
    shares = {
        f"recall@{k}": statistics.mean(
            len(question.evidence & set(found[:k])) / len(question.evidence)
            for question, found in zip(questions, ranked, strict=True)
        )
        for k in (1, 5, 10)
    }
    return {name: round(100 * share, 2) for name, share in shares.items()}
