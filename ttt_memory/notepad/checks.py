"""What `verify` asks of a notepad: the index is the ledger's, and the ledger's passages are what the text gives."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np

from ttt_memory.ledger.records import PassageVectors
from ttt_memory.notepad.heading import heading
from ttt_memory.notepad.index import PassageIndex
from ttt_memory.notepad.terms import count_terms
from ttt_memory.types import Finding

if TYPE_CHECKING:
    from ttt_memory.ledger.tenant import TenantLedger
    from ttt_memory.notepad.embedders import Embedder

SAMPLE = 8
"""Passages embedded anew, spread over the tenant's life."""
SAME = 0.05
"""Distance of a vector to itself on another machine, at most (cosine 0.999)."""
_PAGE = 256


def check(index: PassageIndex, ledger: TenantLedger, embedder: Embedder) -> list[Finding]:
    """Return every difference found."""
    stored = ledger.passage_vectors()
    return list(
        chain(
            _same_index(index, stored),
            _same_terms(stored, ledger),
            _same_vectors(stored, ledger, embedder),
        )
    )


def _same_index(index: PassageIndex, stored: PassageVectors) -> Iterator[Finding]:
    table = index.table
    if not np.array_equal(table.ids, stored.ids) or len(index.dense) != len(stored.ids):
        detail = f"{len(table.ids)} passages and {len(index.dense)} vectors, {len(stored.ids)} in the ledger"
        yield Finding(check="notepad.index", subject="passages", detail=detail)
        return
    owners = [table.numbers.get(name) for name in stored.document_ids]
    if owners != table.owners.tolist() or not np.array_equal(table.lengths, stored.terms):
        yield Finding(check="notepad.index", subject="passages", detail="owners or lengths differ from the ledger's")
    if len(table.ids) and not np.array_equal(index.dense.vectors(table.ids), stored.vectors.astype(np.float32)):
        yield Finding(check="notepad.index", subject="vectors", detail="they differ from the ledger's")


def _same_terms(stored: PassageVectors, ledger: TenantLedger) -> Iterator[Finding]:
    for first in range(0, len(stored.ids), _PAGE):
        page = stored.ids[first : first + _PAGE].tolist()
        counted = {p.id: sum(count_terms(p.text).values()) for p in ledger.passages(page)}
        for passage, terms in zip(page, stored.terms[first : first + _PAGE].tolist(), strict=True):
            if counted.get(passage) != terms:
                detail = f"{terms} terms are stored, its text has {counted.get(passage)}"
                yield Finding(check="notepad.terms", subject=f"passage {passage}", detail=detail)


def _same_vectors(stored: PassageVectors, ledger: TenantLedger, embedder: Embedder) -> Iterator[Finding]:
    if not len(stored.ids):
        return
    if stored.vectors.shape[1] != embedder.dimensions:
        detail = f"{stored.vectors.shape[1]} dimensions, {embedder.name} has {embedder.dimensions}"
        yield Finding(check="notepad.vectors", subject="passages", detail=detail)
        return
    sample = np.unique(np.linspace(0, len(stored.ids) - 1, SAMPLE).astype(np.int64))
    passages = {p.id: p for p in ledger.passages(stored.ids[sample].tolist())}
    for row in sample.tolist():
        passage = int(stored.ids[row])
        if found := passages.get(passage):
            above = heading(found.metadata, found.observed_at, found.ingested_at)
            # Bare, too: the first release embedded passages without a heading.
            anew = embedder.embed([above + found.text, found.text] if above else [found.text])
            # A text without a word has the zero vector in some embedders, so distances and not cosines.
            away = float(np.linalg.norm(anew - stored.vectors[row].astype(np.float32), axis=1).min())
            if away > SAME:
                detail = f"embedded anew it is {away:.4f} away from the stored vector"
                yield Finding(check="notepad.vectors", subject=f"passage {passage}", detail=detail)
