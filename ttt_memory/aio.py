"""`AsyncCompressedMemory`: the verbs of `CompressedMemory`, awaited, on asyncio and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar, overload

from anyio import CancelScope, Lock, get_cancelled_exc_class

from ttt_memory.memory import CompressedMemory
from ttt_memory.worker_threads import in_event_loop, in_thread, readers, writers

if TYPE_CHECKING:
    from ttt_memory.answerers.protocol import Answerer
    from ttt_memory.asking import AnswerStream
    from ttt_memory.model.generate import Sampling
    from ttt_memory.notepad.embedders import Embedder
    from ttt_memory.types import (
        Answer,
        AnswererName,
        Document,
        DocumentInfo,
        Estimate,
        ForgetReport,
        Mode,
        Passage,
        ProgressCallback,
        Receipt,
        Snapshot,
        Source,
        Stats,
        VerifyReport,
    )

R = TypeVar("R")
Where = Mapping[str, Any]


class AsyncAnswerStream(AsyncIterator[str]):
    """Pieces of an answer as they come; `await answer()` gives the whole.

    Use it in `async for`; leave it early through `aclose()` or `async with`, which stop the model. A stream whose
    iteration was cancelled is closed.
    """

    def __init__(self, pieces: AnswerStream) -> None:
        self._pieces = pieces
        self._turn = Lock()

    async def __anext__(self) -> str:
        try:
            piece: str | None = await in_thread(lambda: next(self._pieces, None), limiter=readers(), turn=self._turn)
        except get_cancelled_exc_class():
            await self.aclose()  # cancelled before the thread began, nothing else would stop the model
            raise
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def answer(self) -> Answer:
        """The whole answer with its citations; reads what is left of the stream first."""
        return await in_thread(lambda: self._pieces.answer, limiter=readers(), turn=self._turn)

    async def aclose(self) -> None:
        """Stop generating. Safe to call twice."""
        with CancelScope(shield=True):
            await in_thread(self._pieces.close, limiter=readers(), turn=self._turn)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


class AsyncCompressedMemory:
    """One tenant's memory, for asyncio and trio. Every verb does what the same verb of `CompressedMemory` does.

        async with await AsyncCompressedMemory.open("sqlite:///memory.db", tenant="acme") as memory:
            await memory.ingest("Ada Lovelace wrote the first program in 1843.")
            answer = await memory.ask("Who wrote the first program?")

    Verbs run in worker threads with limits of their own; a call beyond them waits, so a slow writer slows its callers
    down and nothing piles up. Writes of one memory take turns in the order of their calls; reads do not wait for them.

    A call may be cancelled at any await. It returns when its thread has ended, at the latest after the mini-batch or
    transaction in hand: a cancelled `ingest` has committed each document or left no trace of it, and a committed one
    whose reading was cut short is read on by the next write. `progress` is called in the event loop.
    """

    def __init__(self, memory: CompressedMemory) -> None:
        self._memory = memory
        self._writing = Lock()

    # ------------------------------------------------------------------ opening and closing

    @classmethod
    async def open(
        cls,
        url: str | None = None,
        *,
        tenant: str = "default",
        model: str | Path | None = None,
        embedder: str | Embedder | None = None,
        on_conflict: Literal["wait", "raise"] = "wait",
        replay: bool = True,
        rederive: bool = False,
        reindex: bool = False,
        progress: ProgressCallback | None = None,
    ) -> Self:
        """Open a memory; see `CompressedMemory.open`."""
        opened = partial(
            CompressedMemory.open,
            url,
            tenant=tenant,
            model=model,
            embedder=embedder,
            on_conflict=on_conflict,
            replay=replay,
            rederive=rederive,
            reindex=reindex,
            progress=in_event_loop(progress),
        )
        return cls(await in_thread(opened, limiter=writers(), discard=CompressedMemory.close))

    async def close(self) -> None:
        """Wait for the writers, keep a checkpoint and let go of the store; also where the caller is cancelled."""
        with CancelScope(shield=True):
            await self._write(self._memory.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Async{self._memory!r}"

    @property
    def tenant(self) -> str:
        """Whose memory this is."""
        return self._memory.tenant

    # ------------------------------------------------------------------ writing

    @overload
    async def ingest(
        self,
        source: str | Document,
        *,
        metadata: Mapping[str, Any] | None = ...,
        observed_at: datetime | None = ...,
        learn: bool = ...,
        progress: ProgressCallback | None = ...,
    ) -> Receipt: ...
    @overload
    async def ingest(
        self,
        source: Path | Iterable[Source],
        *,
        metadata: Mapping[str, Any] | None = ...,
        observed_at: datetime | None = ...,
        learn: bool = ...,
        progress: ProgressCallback | None = ...,
    ) -> Any: ...
    async def ingest(
        self,
        source: Source | Iterable[Source],
        *,
        metadata: Mapping[str, Any] | None = None,
        observed_at: datetime | None = None,
        learn: bool = True,
        progress: ProgressCallback | None = None,
    ) -> Receipt | list[Receipt]:
        """Remember text; see `CompressedMemory.ingest`. An iterable is read in the worker thread."""
        return await self._write(
            partial(
                self._memory.ingest,
                source,
                metadata=metadata,
                observed_at=observed_at,
                learn=learn,
                progress=in_event_loop(progress),
            )
        )

    # ------------------------------------------------------------------ asking

    @overload
    async def ask(
        self,
        question: str,
        *,
        mode: Mode = ...,
        stream: Literal[False] = ...,
        limit: int = ...,
        where: Where | None = ...,
        as_of: datetime | None = ...,
        answerer: AnswererName | Answerer = ...,
        sampling: Sampling | None = ...,
        explain: bool = ...,
    ) -> Answer: ...
    @overload
    async def ask(
        self,
        question: str,
        *,
        mode: Mode = ...,
        stream: Literal[True],
        limit: int = ...,
        where: Where | None = ...,
        as_of: datetime | None = ...,
        answerer: AnswererName | Answerer = ...,
        sampling: Sampling | None = ...,
        explain: bool = ...,
    ) -> AsyncAnswerStream: ...
    async def ask(
        self,
        question: str,
        *,
        mode: Mode = "hybrid",
        stream: bool = False,
        limit: int = 5,
        where: Where | None = None,
        as_of: datetime | None = None,
        answerer: AnswererName | Answerer = "extract",
        sampling: Sampling | None = None,
        explain: bool = False,
    ) -> Answer | AsyncAnswerStream:
        """Answer from this memory; see `CompressedMemory.ask`. With `stream`, an async iterator of pieces."""
        pieces = await self._read(
            lambda: self._memory.ask(
                question,
                mode=mode,
                stream=True,
                limit=limit,
                where=where,
                as_of=as_of,
                answerer=answerer,
                sampling=sampling,
                explain=explain,
            )
        )
        return AsyncAnswerStream(pieces) if stream else await self._read(lambda: pieces.answer)

    async def search(
        self, query: str, *, limit: int = 5, where: Where | None = None, as_of: datetime | None = None
    ) -> list[Passage]:
        """Passages of the notepad, best first; see `CompressedMemory.search`."""
        return await self._read(partial(self._memory.search, query, limit=limit, where=where, as_of=as_of))

    async def score(self, text: str) -> float:
        """Mean loss of a text under this memory, nats per token; see `CompressedMemory.score`."""
        return await self._read(partial(self._memory.score, text))

    # ------------------------------------------------------------------ documents

    async def documents(
        self, *, where: Where | None = None, limit: int | None = None, after: int = 0
    ) -> list[DocumentInfo]:
        """Live documents in the order of the ledger, without their texts."""
        return await self._read(partial(self._memory.documents, where=where, limit=limit, after=after))

    async def get(self, document_id: str) -> DocumentInfo:
        """One document with its text. Raises DocumentNotFoundError."""
        return await self._read(partial(self._memory.get, document_id))

    async def forget(
        self,
        document_id: str | Sequence[str] | None = None,
        *,
        where: Where | None = None,
        progress: ProgressCallback | None = None,
    ) -> ForgetReport:
        """Erase documents and unlearn them; see `CompressedMemory.forget`.

        Cancelled, nothing is erased, or all of it is and the next write takes the relearning up.
        """
        return await self._write(
            partial(self._memory.forget, document_id, where=where, progress=in_event_loop(progress))
        )

    # ------------------------------------------------------------------ points in time

    async def snapshot(self, label: str | None = None) -> Snapshot:
        """Name this moment. Raises ConflictError where the label is taken."""
        return await self._write(partial(self._memory.snapshot, label))

    async def snapshots(self) -> list[Snapshot]:
        """All snapshots, oldest first."""
        return await self._read(self._memory.snapshots)

    async def restore(self, snapshot: Snapshot | str, *, progress: ProgressCallback | None = None) -> Snapshot:
        """Move the memory to a snapshot, back or forward; see `CompressedMemory.restore`."""
        return await self._write(partial(self._memory.restore, snapshot, progress=in_event_loop(progress)))

    async def fork(
        self, tenant: str, *, at: Snapshot | str | None = None, progress: ProgressCallback | None = None
    ) -> Self:
        """Copy this memory to a new tenant, and open it; see `CompressedMemory.fork`.

        Cancelled, the new tenant does not exist, or is whole and can be opened.
        """
        forked = partial(self._memory.fork, tenant, at=at, progress=in_event_loop(progress))
        return type(self)(await self._write(forked, discard=CompressedMemory.close))

    async def rederive(self, model: str | Path | None = None, *, progress: ProgressCallback | None = None) -> Stats:
        """Relearn everything from the ledger, with another model where one is given."""
        return await self._write(partial(self._memory.rederive, model, progress=in_event_loop(progress)))

    async def reindex(
        self, embedder: str | Embedder | None = None, *, progress: ProgressCallback | None = None
    ) -> Stats:
        """Cut and embed every passage anew; see `CompressedMemory.reindex`.

        Cancelled, the old index is as it was, or the new one is in its place.
        """
        return await self._write(partial(self._memory.reindex, embedder, progress=in_event_loop(progress)))

    # ------------------------------------------------------------------ knowing what there is

    async def estimate(
        self,
        source: Source | Iterable[Source] | None = None,
        *,
        forget: str | Sequence[str] | None = None,
        where: Where | None = None,
    ) -> Estimate:
        """What `ingest(source)`, or `forget(...)`, would cost. Writes nothing."""
        return await self._read(partial(self._memory.estimate, source, forget=forget, where=where))

    async def stats(self) -> Stats:
        """Sizes, counts and the digest of the fast weights."""
        return await self._read(self._memory.stats)

    async def verify(self, *, replay: bool = False, progress: ProgressCallback | None = None) -> VerifyReport:
        """Check that what is stored is what was written; see `CompressedMemory.verify`."""
        return await self._write(partial(self._memory.verify, replay=replay, progress=in_event_loop(progress)))

    async def gc(self, *, grace: timedelta = timedelta(days=30)) -> int:
        """Erase documents detached longer than `grace` that no snapshot holds. Returns their number."""
        return await self._write(partial(self._memory.gc, grace=grace))

    async def export(self, path: str | Path, *, progress: ProgressCallback | None = None) -> Path:
        """Write this memory to one checksummed archive. Never overwrites a file."""
        return await self._write(partial(self._memory.export, path, progress=in_event_loop(progress)))

    @classmethod
    async def import_(
        cls,
        path: str | Path,
        url: str | None = None,
        *,
        tenant: str | None = None,
        embedder: str | Embedder | None = None,
        progress: ProgressCallback | None = None,
    ) -> Self:
        """Open an exported memory as a new tenant of a store; see `CompressedMemory.import_`."""
        imported = partial(
            CompressedMemory.import_, path, url, tenant=tenant, embedder=embedder, progress=in_event_loop(progress)
        )
        return cls(await in_thread(imported, limiter=writers(), discard=CompressedMemory.close))

    # ------------------------------------------------------------------ helpers

    async def _read(self, verb: Callable[[], R]) -> R:
        return await in_thread(verb, limiter=readers())

    async def _write(self, verb: Callable[[], R], discard: Callable[[R], None] | None = None) -> R:
        return await in_thread(verb, limiter=writers(), turn=self._writing, discard=discard)
