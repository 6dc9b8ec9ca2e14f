"""Keeps one tenant's fast weights in step with its ledger: state = fold(read, W0, segments of the ledger)."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from ttt_memory.errors import ModelFormatError
from ttt_memory.lane import LEARN, backend, lane_for
from ttt_memory.ledger.records import CheckpointRow, DocumentRow, Point
from ttt_memory.model.fold import Segment, Step, read, segments
from ttt_memory.model.state import FastWeights
from ttt_memory.snapshots.codec import decode, encode
from ttt_memory.states import Published, StateCache
from ttt_memory.types import Progress, ProgressCallback

if TYPE_CHECKING:
    from ttt_memory.ledger.records import Head
    from ttt_memory.ledger.tenant import TenantLedger
    from ttt_memory.model.loaded import LoadedModel

_NEWEST_KEPT = 2


def folded_text(text: str, stream: str | None) -> str:
    """The text as the fold reads it: an append to a stream ends with a line break, so that turns stay apart."""
    return text if stream is None or text.endswith("\n") else text + "\n"


class Learner:
    """Folds learned documents into the fast weights and publishes a new state at every segment's end.

    `published` is replaced, never changed: readers take it without a lock. Only one thread may call the other methods
    at a time (the memory's write lock sees to that).
    """

    def __init__(self, ledger: TenantLedger, model: LoadedModel, *, checkpoint_tokens: int, cache: StateCache) -> None:
        self.ledger, self.model = ledger, model
        self._checkpoint_tokens, self._cache = checkpoint_tokens, cache
        self.lane = lane_for(sum(parameter.numel() for parameter in model.net.parameters()))
        self.backend = backend(self.lane, str(model.compute_dtype).removeprefix("torch."))
        self.w0 = model.initial_state()
        self._w0_arrays = _arrays(self.w0)
        self._epoch, self._unsaved = -1, 0
        self.seconds_per_token: float | None = None
        self.published = self._start()

    def load(self, head: Head) -> None:
        """Publish the newest state of the head's lineage that is kept anywhere; nothing is replayed here."""
        row = self.ledger.best_checkpoint(head.point, self.model.fingerprint)
        self.published = self.read_checkpoint(row) if row else self._start()
        self._epoch, self._unsaved = head.epoch, 0

    def catch_up(self, progress: ProgressCallback | None = None) -> int:
        """Read every live learned document after the published point. Returns the tokens read.

        Interrupted at any moment, the published state is that of the last finished segment.
        """
        head = self.ledger.head()
        done = self.published.through.position
        pending = self.ledger.documents(
            after_position=done - 1 if self.published.segment is not None else done, learn_only=True
        )
        tokens = 0
        for number, row in enumerate(pending):
            if row.position > head.position:  # another process is appending: its documents are read next time
                break
            tokens += self._read_document(row, number, progress)
        self.published = replace(self.published, through=head.point, segment=None)
        return tokens

    def replay(self, point: Point, *, on_step: Callable[[Step | None], None] | None = None) -> FastWeights:
        """The state at `point` folded from W0, whatever is cached. Publishes nothing."""
        weights = self.w0
        for row in self.ledger.documents(learn_only=True, point=point):
            for segment in self._segments(row):
                weights = self.lane.run(read(self.model, weights, segment), priority=LEARN, on_step=on_step)
        return weights

    def checkpoint(self, kind: str = "policy") -> CheckpointRow:
        """Keep the published state, unless that is done already; then thin out the old ones.

        Raises ConflictError where the ledger was rewritten since `load`: the state may hold what was forgotten.
        """
        at = self.published
        row = self.ledger.best_checkpoint(at.through, self.model.fingerprint)
        if row is None or (row.tokens, row.segment, row.digest) != (at.tokens, at.segment, at.digest):
            row = self._put(self.ledger, at.through, at, kind, self._epoch)
            self._thin()
            _give_back()
        self._unsaved = 0
        return row

    def close(self) -> None:
        """Keep a checkpoint where tokens were read since the last one, and the state in memory for the next opening.

        Raises ConflictError where the ledger was rewritten since `load`.
        """
        if self._unsaved:
            self.checkpoint()
        row = self.ledger.best_checkpoint(self.published.through, self.model.fingerprint)
        if row and row.digest == self.published.digest:
            self._cache.put(row.id, self.published)

    def copy_state(self, target: TenantLedger, point: Point) -> None:
        """Give a fork of `point` the newest state there is for it; opening the fork replays what is missing."""
        row = self.ledger.best_checkpoint(point, self.model.fingerprint)
        at = self.read_checkpoint(row) if row else self._start()
        if self.published.through == point:
            at = self.published
        if at.tokens:
            head = target.head()
            self._put(target, Point(head.branch, at.through.position), at, "fork", head.epoch)

    def read_checkpoint(self, row: CheckpointRow) -> Published:
        """The state of a checkpoint. Raises CorruptionError where its bytes are not what was written."""
        return self._cache.get(row.id) or self.decode_checkpoint(row)

    def decode_checkpoint(self, row: CheckpointRow) -> Published:
        """The same from the stored bytes, whatever is in memory."""
        arrays, _ = decode(self.ledger.load_blob(row.blob), self._w0_arrays)
        weights = FastWeights.from_tensors({name: torch.from_numpy(array) for name, array in arrays.items()})
        return Published(weights, row.point, row.segment, row.tokens, row.backend)

    def _put(self, ledger: TenantLedger, point: Point, at: Published, kind: str, epoch: int) -> CheckpointRow:
        return ledger.put_checkpoint(
            point,
            data=encode(_arrays(at.weights), self._w0_arrays, meta={"model": self.model.fingerprint}),
            digest=at.digest,
            tokens=at.tokens,
            model_fingerprint=self.model.fingerprint,
            backend=dict(self.backend if at.backend is None else at.backend),
            segment=at.segment,
            kind=kind,
            expected_epoch=epoch,
        )

    def _start(self) -> Published:
        return Published(self.w0, Point(self.ledger.head().branch, 0), None, 0, None)

    def _read_document(self, row: DocumentRow, number: int, progress: ProgressCallback | None) -> int:
        resumed = (self.published.segment or 0) if self.published.through.position == row.position else 0
        skipped = row.skipped if resumed else 0
        losses: list[float] = []
        done = 0

        def on_step(step: Step | None) -> None:
            nonlocal done, skipped
            if step is None:
                return
            done += step.tokens
            losses.append(step.loss)
            skipped += step.skipped
            if progress:
                progress(Progress("learn", done, row.tokens, number, step.loss))

        for index, segment in enumerate(self._segments(row)):
            if index < resumed:
                done += len(segment.tokens)
                batches = len(losses) + -(-len(segment.tokens) // self.model.config.inner.mini_batch)
                losses[:] = row.losses[:batches]
                continue
            before, started = done, time.perf_counter()
            weights = self.lane.run(read(self.model, self.published.weights, segment), priority=LEARN, on_step=on_step)
            if not weights.is_finite():  # steps are guarded one by one: reaching this is a defect, not bad input
                raise ModelFormatError("The fast weights are no longer finite.", document_id=row.id)
            count = done - before
            self._publish(weights, row.point, index + 1, count)
            self._time(count, time.perf_counter() - started)
            self._record(row, losses, skipped, complete=False)
            if self._unsaved >= self._checkpoint_tokens:
                self.checkpoint()
        self.published = replace(self.published, through=row.point, segment=None)
        self._record(row, losses, skipped, complete=True)
        return done

    def _publish(self, weights: FastWeights, through: Point, segment: int, tokens: int) -> None:
        known = self.published.backend
        mixed = known is not None and dict(known) != self.backend
        self.published = Published(
            weights, through, segment, self.published.tokens + tokens, {} if mixed else self.backend
        )
        self._unsaved += tokens

    def _record(self, row: DocumentRow, losses: Sequence[float], skipped: int, *, complete: bool) -> None:
        self.ledger.record_learning(
            row.id, losses=losses, skipped=skipped, complete=complete, expected_epoch=self._epoch
        )

    def _segments(self, row: DocumentRow) -> Iterator[Segment]:
        text = folded_text(self.ledger.text(row.id), row.stream)
        tokens = self.model.tokenizer.encode(text)
        if len(tokens) != row.tokens:
            raise ModelFormatError(
                f"Document {row.id} has {len(tokens)} tokens, but {row.tokens} were counted when it was ingested.",
                why="the tokenizer changed under the same fingerprint",
                document_id=row.id,
            )
        return segments(tokens, self._preceding(row), self.model.config, append=row.stream is not None)

    def _preceding(self, row: DocumentRow) -> np.ndarray:
        """Up to `context_tokens` learned tokens before this append in its stream, oldest first."""
        if row.stream is None:
            return np.empty(0, np.int32)
        parts: list[np.ndarray] = []
        wanted = self.model.config.context_tokens
        earlier = self.ledger.stream_documents(row.stream, before_position=row.position, point=row.point)
        for other in earlier:
            if not other.learn:
                continue
            parts.append(self.model.tokenizer.encode(folded_text(self.ledger.text(other.id), other.stream)))
            wanted -= len(parts[-1])
            if wanted <= 0:
                break
        return np.concatenate([np.empty(0, np.int32), *reversed(parts)])[-self.model.config.context_tokens :]

    def _time(self, tokens: int, seconds: float) -> None:
        if tokens:
            now = seconds / tokens
            self.seconds_per_token = now if self.seconds_per_token is None else 0.7 * self.seconds_per_token + 0.3 * now

    def _thin(self) -> None:
        """Keep the newest checkpoints, those of snapshots, and one for every doubling of the distance to the head.

        So their number grows with the logarithm of the tokens read, and a replay after `forget` reads at most about
        twice the tokens that it must.
        """
        pinned = {snapshot.checkpoint for snapshot in self.ledger.snapshots()}
        free = sorted((r for r in self.ledger.checkpoints() if r.id not in pinned), key=lambda r: r.tokens)
        seen: set[int] = set()
        drop = []
        for row in free[:-_NEWEST_KEPT]:  # oldest first: it is the oldest of a bucket that grows into the next one
            bucket = max(0, self.published.tokens - row.tokens).bit_length()
            if bucket in seen:
                drop.append(row.id)
            seen.add(bucket)
        if drop:
            self.ledger.drop_checkpoints(drop)


def _give_back() -> None:
    """Let glibc return the blocks that learning has freed: it keeps those below 32 MB, hundreds of MB in all."""
    with contextlib.suppress(OSError, AttributeError):  # another C library: it has its own ways
        ctypes.CDLL(None).malloc_trim(0)


def _arrays(weights: FastWeights) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in weights.tensors().items()}
