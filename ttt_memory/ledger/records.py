"""What goes into the ledger and what comes out of it: frozen values, independent of the database."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float16 = NDArray[np.float16]


class Point(NamedTuple):
    """A moment of a tenant's history: the ledger's content when the branch's head stood at this position.

    Positions grow over the tenant's whole life and are never reused; position 0 is before the first document.
    """

    branch: int
    position: int


@dataclass(frozen=True, slots=True)
class Head:
    """Where a tenant stands.

    Attributes:
        version: changes with every write that a verb could notice (append, forget, restore, rederive, pins, reindexing,
            gc); compare-and-swap value of the writers. Learning results, checkpoints and snapshots do not change it.
        epoch: changes with everything that makes a cached fast-weight state wrong (forgetting a learned document,
            restore, rederive).
        branch, position: the live point.
        relearning: learned text was forgotten and the weights are not rebuilt yet.
        model: the pinned model, as given to `pin_model`.
        embedder: the pinned embedder.
    """

    version: int
    epoch: int
    branch: int
    position: int
    relearning: bool
    model: dict[str, Any] | None
    embedder: str | None

    @property
    def point(self) -> Point:
        """The live point."""
        return Point(self.branch, self.position)


@dataclass(frozen=True, slots=True)
class NewPassage:
    """A passage to store: `text[start:end]` in characters, term frequencies, and a float16 vector's bytes.

    `token_vectors` are the notepad's own encoding of its tokens' vectors; None where the embedder gives none.
    """

    start: int
    end: int
    terms: Mapping[str, int]
    embedding: bytes
    token_vectors: bytes | None = None


@dataclass(frozen=True, slots=True)
class NewDocument:
    """A document to append. `content_key` comes from `TenantLedger.content_key`; `tokens` counts predicted tokens."""

    text: str
    content_key: bytes
    tokens: int
    metadata: Mapping[str, Any] = field(default_factory=dict)
    observed_at: datetime | None = None
    stream: str | None = None
    sequence: int | None = None
    learn: bool = True
    origin: str = "user"


@dataclass(frozen=True, slots=True)
class DocumentRow:
    """A stored document without its text.

    Attributes:
        size: bytes of UTF-8.
        learned: whether the fast weights have read it in its lineage; `losses` and `skipped` are then set.
        created: False only from `append`, where the same content was live already.
    """

    id: str
    position: int
    branch: int
    content_key: bytes
    live: bool
    characters: int
    size: int
    tokens: int
    learn: bool
    learned: bool
    losses: tuple[float, ...]
    skipped: int
    metadata: dict[str, Any]
    observed_at: datetime
    ingested_at: datetime
    stream: str | None
    sequence: int | None
    origin: str
    created: bool = True

    @property
    def point(self) -> Point:
        """The point at which this document was the newest."""
        return Point(self.branch, self.position)


@dataclass(frozen=True, slots=True)
class PassageRow:
    """A stored passage: offsets in characters; `terms` counts term occurrences (the passage's length for BM25)."""

    id: int
    document_id: str
    ordinal: int
    start: int
    end: int
    terms: int


@dataclass(frozen=True, slots=True)
class PassageText:
    """A passage with its verbatim text and its document's metadata."""

    id: int
    document_id: str
    ordinal: int
    start: int
    end: int
    text: str
    metadata: dict[str, Any]
    observed_at: datetime
    ingested_at: datetime


class PassageVectors(NamedTuple):
    """All live passages: ids [N], document ids (N), term counts [N], vectors [N, D]."""

    ids: Int64
    document_ids: list[str]
    terms: Int32
    vectors: Float16


class LiveMetadata(NamedTuple):
    """What filters and ranking may look at of a live document, beside its passages."""

    document_id: str
    metadata: dict[str, Any]
    observed_at: datetime
    ingested_at: datetime
    stream: str | None = None
    sequence: int | None = None
    origin: str = "user"


@dataclass(frozen=True, slots=True)
class CheckpointRow:
    """Cached fast weights at a point.

    Attributes:
        position: of the last document read; fully where `segment` is None, else its first `segment` segments.
        tokens: learned tokens of the lineage up to there.
        digest: of the fast weights (the caller's).
        backend: fingerprint of the machine that computed it.
        blob: address of the bytes; size: their number.
    """

    id: str
    branch: int
    position: int
    segment: int | None
    tokens: int
    digest: str
    model_fingerprint: str
    backend: dict[str, Any]
    kind: str
    created_at: datetime
    blob: str
    size: int

    @property
    def point(self) -> Point:
        """The point whose lineage this state has read."""
        return Point(self.branch, self.position)


@dataclass(frozen=True, slots=True)
class SnapshotRow:
    """A named point. `digest` and `checkpoint` are None where the weights must be replayed first."""

    id: str
    label: str | None
    branch: int
    position: int
    digest: str | None
    checkpoint: str | None
    documents: int
    created_at: datetime
    rebuilt_from: str | None

    @property
    def point(self) -> Point:
        """The point it names."""
        return Point(self.branch, self.position)


@dataclass(frozen=True, slots=True)
class ForgetResult:
    """What `forget` removed.

    Attributes:
        documents: ids, as given, without repetitions.
        earliest_position: of the removed documents that were live and to be learned; None where no replay is due.
        dropped_checkpoints: number of cached states that contained one of them.
        rebuilt_snapshots: ids of the snapshots that replace those which held one of them.
        purged: whether the file's free space is clean too; if not, that is due on the next opening.
    """

    documents: tuple[str, ...]
    earliest_position: int | None
    dropped_checkpoints: int
    rebuilt_snapshots: tuple[str, ...]
    purged: bool


@dataclass(frozen=True, slots=True)
class Counts:
    """Sizes of one tenant. Tokens, text bytes and passages are of live documents."""

    documents: int
    detached: int
    passages: int
    postings: int
    snapshots: int
    checkpoints: int
    tokens: int
    learned_tokens: int
    text_bytes: int
    blob_bytes: int
    tombstones: int


class LedgerFinding(NamedTuple):
    """One thing that `verify` found wrong."""

    check: str
    subject: str
    detail: str
