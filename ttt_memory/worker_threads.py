"""Verbs in worker threads, for asyncio and trio: awaited, cancellable, and never left running behind the caller's back.

A cancelled call returns only when its thread has ended. anyio's own way (`abandon_on_cancel`) has two answers to
cancellation, to leave the thread running or to ignore it, and asyncio's `task.cancel()` passes through both; so the
thread is told here, and waited for.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, Literal, TypeVar

from anyio import CancelScope, CapacityLimiter, Event, RunFinishedError, from_thread, get_cancelled_exc_class, to_thread
from anyio.lowlevel import RunVar, current_token

from ttt_memory.lane import interruptible
from ttt_memory.types import Progress, ProgressCallback

R = TypeVar("R")

_WRITERS, _READERS = 32, 16
_writers: RunVar[CapacityLimiter] = RunVar("ttt_memory_writers")
_readers: RunVar[CapacityLimiter] = RunVar("ttt_memory_readers")


def writers() -> CapacityLimiter:
    """Threads of this event loop that write: many, since all but one of them wait for the compute lane."""
    return _limiter(_writers, _WRITERS)


def readers() -> CapacityLimiter:
    """Threads of this event loop that read; about as many as a store has connections."""
    return _limiter(_readers, _READERS)


def _limiter(var: RunVar[CapacityLimiter], threads: int) -> CapacityLimiter:
    try:
        return var.get()
    except LookupError:
        limiter = CapacityLimiter(threads)
        var.set(limiter)
        return limiter


class _Cancelled(BaseException):
    """Ends a verb whose caller was cancelled. Its thread alone sees it."""


class _Call(Generic[R]):
    """A verb, and what its thread and its caller must know of each other."""

    def __init__(self, verb: Callable[[], R], discard: Callable[[R], None] | None) -> None:
        self._verb, self._discard = verb, discard
        self._lock = threading.Lock()
        self._state: Literal["waiting", "running", "ended"] = "waiting"
        self._cancelled = False
        self._result: tuple[R, ...] = ()
        self._token = current_token()
        self._ended = Event()

    def run(self) -> R:
        """In the thread."""
        with self._lock:
            if self._cancelled:
                raise _Cancelled
            self._state = "running"
        try:
            with interruptible(self._check):
                result = self._verb()
            self._result = (result,)
            return result
        finally:
            with self._lock:
                self._state = "ended"
            if self._cancelled:
                self._drop()
                with contextlib.suppress(RunFinishedError):
                    from_thread.run_sync(self._ended.set, token=self._token)

    def tell(self) -> bool:
        """In the event loop: let the thread know that its caller is gone. True while it still runs."""
        with self._lock:
            self._cancelled = True
            if self._state == "ended":
                self._drop()
            return self._state == "running"

    async def cancel(self) -> None:
        """In the event loop: tell the thread, and wait until it has ended."""
        if self.tell():
            while not self._ended.is_set():
                # asyncio's task.cancel() reaches into shielded scopes; the first cancellation goes on afterwards.
                with contextlib.suppress(get_cancelled_exc_class()), CancelScope(shield=True):
                    await self._ended.wait()

    def _drop(self) -> None:
        if self._discard and self._result:
            self._discard(self._result[0])

    def _check(self) -> None:
        if self._cancelled:
            raise _Cancelled


async def in_thread(
    verb: Callable[[], R],
    *,
    limiter: CapacityLimiter,
    turn: AbstractAsyncContextManager[Any] | None = None,
    discard: Callable[[R], None] | None = None,
) -> R:
    """Run a verb in a worker thread.

    Args:
        verb: called in the thread; cancelled, it ends at its next wait for the compute lane.
        limiter: how many threads may run at once; further calls wait.
        turn: entered first, such as a lock that lets one writer of a memory in.
        discard: called in the thread with a result that nobody will receive, because the caller was cancelled.
    """
    async with turn or contextlib.nullcontext():
        call = _Call(verb, discard)
        try:
            return await to_thread.run_sync(call.run, abandon_on_cancel=True, limiter=limiter)
        except get_cancelled_exc_class():
            await call.cancel()
            raise
        except GeneratorExit:  # the coroutine is closed, not cancelled: nothing can be awaited any more
            call.tell()
            raise


def in_event_loop(progress: ProgressCallback | None) -> ProgressCallback | None:
    """A callback for threads that calls this one in the event loop, and waits for it."""
    if progress is None:
        return None
    token = current_token()
    return lambda step: _call(progress, step, token)


def _call(progress: ProgressCallback, step: Progress, token: Any) -> None:
    from_thread.run_sync(progress, step, token=token)
