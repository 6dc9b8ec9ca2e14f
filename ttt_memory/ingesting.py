"""The path of one document: checked text, passages, commit, fast weights, receipt."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ttt_memory.errors import ConflictError
from ttt_memory.learner import folded_text
from ttt_memory.ledger.records import DocumentRow, Head, NewDocument, NewPassage
from ttt_memory.notepad.heading import heading
from ttt_memory.reindexing import embed_passages
from ttt_memory.types import Document, Progress, ProgressCallback, Receipt

if TYPE_CHECKING:
    from ttt_memory.handle import Handle


def ingest(handle: Handle, document: Document, *, learn: bool, progress: ProgressCallback | None) -> Receipt:
    """Commit a checked document, let the weights read it, and say what became of it."""
    started = time.perf_counter()
    with handle.writing():
        row = store(handle, document, learn=learn, progress=progress)
        if row.learn:
            handle.learn(progress)
            row = replace(handle.tenant.document(row.id), created=row.created)
    return Receipt(
        document_id=row.id,
        created=row.created,
        tokens=row.tokens,
        position=row.position,
        learned=row.learned,
        losses=row.losses,
        surprise=surprise(row.losses, row.tokens, handle),
        skipped_steps=row.skipped,
        seconds=time.perf_counter() - started,
    )


def store(handle: Handle, document: Document, *, learn: bool, progress: ProgressCallback | None) -> DocumentRow:
    """Commit a checked document and make it findable; the weights do not read it yet. Needs `writing()`."""
    row = handle.at_head(_Write(handle, document, learn, progress))
    if row.created:
        handle.notepad.add(row.id)
    return row


class _Write:
    """Text, passages, vectors and postings as one commit; or the document that is there already.

    Called again where another writer was first; the passages are computed once.
    """

    def __init__(self, handle: Handle, document: Document, learn: bool, progress: ProgressCallback | None) -> None:
        self.handle, self.document, self.learn, self.progress = handle, document, learn, progress
        self.passages: list[NewPassage] | None = None

    def __call__(self, head: Head) -> DocumentRow:
        rows, document = self.handle.tenant, self.document
        sequence = document.sequence
        if document.stream is not None and sequence is None:
            sequence = rows.next_sequence(document.stream)
        key = rows.content_key(document.text, document.stream, sequence)
        if existing := rows.find_document(key):
            return replace(existing, created=False)
        if document.stream is not None and document.sequence is not None:
            self._check_sequence(document.stream, document.sequence)
        if self.passages is None:
            self.passages = self._cut_and_embed()
        new = NewDocument(
            text=document.text,
            content_key=key,
            tokens=len(self.handle.model.tokenizer.encode(folded_text(document.text, document.stream))),
            metadata=document.metadata,
            observed_at=document.observed_at,
            stream=document.stream,
            sequence=sequence,
            learn=self.learn,
            origin=document.origin,
        )
        return rows.append(new, self.passages, expected_version=head.version)

    def _check_sequence(self, stream: str, sequence: int) -> None:
        if self.handle.tenant.find_append(stream, sequence):
            raise ConflictError(
                f"Stream {stream!r} has other content at sequence {sequence}.",
                why="an append never changes once it is ingested",
                fix="Give the next sequence, or None to take it.",
                stream=stream,
                sequence=sequence,
            )

    def _cut_and_embed(self) -> list[NewPassage]:
        def on_step(step: tuple[int, int]) -> None:
            if self.progress:
                self.progress(Progress("embed", step[0], step[1], 0, None))

        above = heading(self.document.metadata, self.document.observed_at)
        steps = self.handle.notepad.prepare(self.document.text, heading=above)
        return embed_passages(steps, self.handle.embedder, self.handle.learner.lane, on_step)


def numbered(progress: ProgressCallback | None, number: int) -> ProgressCallback | None:
    """The callback, counting documents from `number` on."""
    return (lambda step: progress(step._replace(document=number + step.document))) if progress else None


def surprise(losses: Sequence[float], tokens: int, handle: Handle) -> float | None:
    """Mean loss over a document's tokens before its updates, nats per token; None where it is not read yet.

    Mini-batches weigh by their length: the last one of a segment may be shorter.
    """
    if not losses:
        return None
    shape, sizes = handle.shape, list[int]()
    for start in range(0, tokens, shape.segment_tokens):
        segment = min(shape.segment_tokens, tokens - start)
        sizes += [min(shape.mini_batch, segment - at) for at in range(0, segment, shape.mini_batch)]
    if len(sizes) != len(losses):
        return None
    return sum(loss * size for loss, size in zip(losses, sizes, strict=True)) / tokens
