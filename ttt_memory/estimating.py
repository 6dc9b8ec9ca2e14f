"""Costs before they are paid, and sizes as they are."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

from ttt_memory.learner import folded_text
from ttt_memory.model.fold import Step, read, segments
from ttt_memory.types import Document, Estimate, Stats

if TYPE_CHECKING:
    from ttt_memory.handle import Handle
    from ttt_memory.ledger.records import Head
    from ttt_memory.model.state import FastWeights

_PASSAGE_TOKENS = 188
"""Tokens a passage holds on average: 71,602 SmolLM2 tokens of a validation book made 380 passages."""
_PASSAGE_BYTES = 4_328
"""Bytes those passages each added to a SQLite store besides the text: vector, postings and their indexes."""
_TOKEN_BYTES = 9_620
"""Bytes of token vectors each of them has, where the embedder gives any."""


def of_ingest(handle: Handle, documents: Iterable[Document]) -> Estimate:
    """Tokens, seconds and bytes of ingesting checked documents."""
    count = tokens = size = 0
    for document in documents:
        count += 1
        tokens += len(handle.model.tokenizer.encode(folded_text(document.text, document.stream)))
        size += len(document.text.encode())
    passages = -(-tokens // _PASSAGE_TOKENS)
    seconds = tokens * _seconds_per_token(handle) + passages * _seconds_per_passage(handle)
    size += passages * (_PASSAGE_BYTES + _TOKEN_BYTES * hasattr(handle.embedder, "embed_tokens"))
    return Estimate(documents=count, tokens=tokens, seconds=seconds, bytes=size)


def of_forget(handle: Handle, ids: Sequence[str]) -> Estimate:
    """Tokens to replay, the seconds that takes, and the bytes of text that would go."""
    rows = [handle.tenant.document(document_id) for document_id in ids]
    first = min((row.position for row in rows if row.learn), default=None)
    tokens = 0
    if first is not None:
        clean = [c for c in handle.tenant.checkpoints() if c.position < first]
        start = max((c.position for c in clean), default=0)
        gone = {row.id for row in rows}
        later = handle.tenant.documents(after_position=start, learn_only=True)
        tokens = sum(row.tokens for row in later if row.id not in gone)
    return Estimate(
        documents=len(rows),
        tokens=tokens,
        seconds=tokens * _seconds_per_token(handle),
        bytes=sum(row.size for row in rows),
    )


def stats(handle: Handle, tenant: str, head: Head) -> Stats:
    """State of one tenant; see `CompressedMemory.stats`."""
    counts, at, pin = handle.tenant.counts(), handle.standing(head), head.model or {}
    return Stats(
        tenant=tenant,
        documents=counts.documents,
        detached_documents=counts.detached,
        passages=counts.passages,
        snapshots=counts.snapshots,
        checkpoints=counts.checkpoints,
        tokens=counts.tokens,
        learned_tokens=at.tokens,
        position=head.position,
        learned_through=at.through.position,
        relearning=not handle.clean(head),
        digest=at.digest,
        state_bytes=handle.shape.state_bytes,
        text_bytes=counts.text_bytes,
        store_bytes=handle.ledger.size_bytes(),
        model=handle.model_name,
        model_fingerprint=pin["fingerprint"],
        embedder=handle.embedder.name,
        backend=dict(at.backend),
    )


def _seconds_per_token(handle: Handle) -> float:
    """This machine's speed of learning: measured while learning, else on two mini-batches whose result is dropped."""
    if handle.learner.seconds_per_token is None:
        config = handle.model.config
        tokens = handle.model.tokenizer.encode("The quick brown fox jumps over the lazy dog. " * 200)
        sample = next(segments(tokens[: 2 * config.inner.mini_batch], tokens[:0], config, append=False))

        def job() -> Generator[Step | None, None, FastWeights]:
            return (yield from read(handle.model, handle.learner.w0, sample))

        started = time.perf_counter()
        handle.learner.lane.run(job())
        handle.learner.seconds_per_token = (time.perf_counter() - started) / len(sample.tokens)
    return handle.learner.seconds_per_token


def _seconds_per_passage(handle: Handle) -> float:
    started = time.perf_counter()
    handle.embedder.embed(["The quick brown fox jumps over the lazy dog. " * 12] * 4)
    return (time.perf_counter() - started) / 4
