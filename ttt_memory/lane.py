"""The compute lane: the one thread of this process on which models run.

Jobs are generators that yield between mini-batches (or tokens), so that a waiting `ask` goes before the next
mini-batch of an `ingest`. The lane's number of threads is fixed, whatever the application sets for its own: fp32 sums
differ between thread counts, and the fast weights must not.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import platform
import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

from ttt_memory.settings import Settings

Y = TypeVar("Y")
R = TypeVar("R")

ASK, LEARN = 0, 1
"""Priorities: readers before the next mini-batch of a writer."""
_CANCELLED = -1
_TINY = 2_000_000
_POLL_SECONDS = 0.05

_interrupt: ContextVar[Callable[[], None] | None] = ContextVar("ttt_memory_interrupt", default=None)


@contextlib.contextmanager
def interruptible(check: Callable[[], None]) -> Iterator[None]:
    """Call `check` whenever a verb, called inside this context, waits for the lane; what it raises ends the verb.

    It is never called inside a transaction, nor between a commit and what must follow it.
    """
    token = _interrupt.set(check)
    try:
        yield
    finally:
        _interrupt.reset(token)


def check_interrupt() -> None:
    """Raise what the caller's `interruptible` check raises, if there is one."""
    if check := _interrupt.get():
        check()


class _Job:
    """A generator on its way through the lane, and the mailbox in which its caller reads what it yields."""

    def __init__(self, steps: Generator[Any, None, Any], threads: int, worker: _Worker) -> None:
        self.steps, self.threads, self.worker, self.cancelled = steps, threads, worker, False
        self.events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()  # step*, then one of done and error

    def advance(self) -> bool:
        """Take one step, on the lane. True while there is more to do."""
        try:
            if self.cancelled:
                self.steps.close()
                self.events.put(("done", None))
                return False
            self.events.put(("step", next(self.steps)))
        except StopIteration as stop:
            self.events.put(("done", stop.value))
            return False
        except BaseException as error:
            self.events.put(("error", error))
            return False
        return True

    def next_event(self) -> tuple[str, Any]:
        """What comes next from the lane; raises what an `interruptible` check raises meanwhile."""
        if _interrupt.get() is None:
            return self.events.get()
        while True:
            check_interrupt()
            with contextlib.suppress(queue.Empty):
                return self.events.get(timeout=_POLL_SECONDS)

    def cancel(self) -> None:
        """Close the generator before its next step, whatever else waits, and return when that is done."""
        self.worker.hurry(self)
        while self.events.get()[0] == "step":
            pass


class _Worker:
    """The thread: takes one step of the most urgent job, then of the oldest."""

    def __init__(self, name: str) -> None:
        self._order = itertools.count()
        self._waiting: list[tuple[int, int, _Job]] = []
        self._wake = threading.Condition()
        self._threads = 0
        self._thread = threading.Thread(target=self._work, name=f"ttt-memory-{name}", daemon=True)
        self._thread.start()

    def submit(self, job: _Job, priority: int) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("A job of the compute lane cannot wait for another one.")
        with self._wake:
            heapq.heappush(self._waiting, (priority, next(self._order), job))
            self._wake.notify()

    def hurry(self, job: _Job) -> None:
        """Let a job that is cancelled come next, so that its caller need not wait for older ones."""
        with self._wake:
            job.cancelled = True
            self._waiting = [
                (_CANCELLED if other is job else priority, number, other) for priority, number, other in self._waiting
            ]
            heapq.heapify(self._waiting)

    def _work(self) -> None:
        while True:
            with self._wake:
                while not self._waiting:
                    self._wake.wait()
                entry = heapq.heappop(self._waiting)
            job = entry[2]
            if job.threads != self._threads:
                _fix_threads(job.threads)
                self._threads = job.threads
            if job.advance():
                with self._wake:  # with its old number: an urgent job passes, an equal one does not
                    heapq.heappush(self._waiting, (_CANCELLED, *entry[1:]) if job.cancelled else entry)


class Lane:
    """The compute lane as one model uses it: with that model's number of threads."""

    def __init__(self, threads: int, *, worker: str = "compute") -> None:
        self.threads, self._name = threads, worker

    def run(
        self, steps: Generator[Y, None, R], *, priority: int = ASK, on_step: Callable[[Y], None] | None = None
    ) -> R:
        """Run a job to its end and return its value.

        `on_step` is called in the caller's thread with what the job yields. If it raises, or the caller is
        interrupted, the job is closed at its next step before the exception goes on: nothing runs afterwards.
        """
        job = self._submit(steps, priority)
        try:
            while True:
                kind, value = job.next_event()
                if kind == "done":
                    return value  # type: ignore[no-any-return]
                if kind == "error":
                    break
                if on_step:
                    on_step(value)
        except BaseException:
            job.cancel()
            raise
        raise value

    def stream(self, steps: Generator[Y, None, Any], *, priority: int = ASK) -> Iterator[Y]:
        """Yield what the job yields. Leaving the iteration early closes the job."""
        job = self._submit(steps, priority)
        finished = False
        try:
            while True:
                kind, value = job.next_event()
                finished = kind != "step"
                if kind == "error":
                    raise value
                if finished:
                    return
                yield value
        finally:
            if not finished:
                job.cancel()

    def _submit(self, steps: Generator[Any, None, Any], priority: int) -> _Job:
        worker = _worker(self._name)
        job = _Job(steps, self.threads, worker)
        worker.submit(job, priority)
        return job


def lane_for(parameters: int) -> Lane:
    """The lane for a model of this size. A tiny one takes one thread: more would only wait for each other."""
    return Lane(1 if parameters < _TINY else Settings.from_env().threads)


def embedding_lane() -> Lane:
    """A second thread, for the small embedder alone: a query must not wait for a mini-batch of a large model.

    It computes with one thread, so that a text has the same vector whoever asks, and because more would be slower.
    """
    return Lane(1, worker="embedding")


def backend(lane: Lane, dtype: str) -> dict[str, str]:
    """What the digest of a state depends on besides its inputs: a replay is bit-exact only where all of it is equal."""
    import torch

    from ttt_memory.model.processor import instruction_set

    return {
        "device": "cpu",
        "machine": platform.machine(),
        "isa": instruction_set(),
        "torch": torch.__version__,
        "dtype": dtype,
        "threads": str(lane.threads),
    }


def _fix_threads(threads: int) -> None:
    """Fix this thread's share of PyTorch's pools without changing what the application set for its own threads."""
    import torch

    before = torch.get_num_threads()  # also makes this thread take its first number from the process, once
    torch.set_num_threads(threads)
    # set_num_threads also sets the number that threads started later begin with: give that one back.
    restorer = threading.Thread(target=torch.set_num_threads, args=(before,))
    restorer.start()
    restorer.join()


_workers: dict[tuple[str, int], _Worker] = {}
_workers_lock = threading.Lock()


def _worker(name: str) -> _Worker:
    """A worker of this process, started at first use. A forked child would inherit dead ones, so it gets its own."""
    with _workers_lock:
        if (name, os.getpid()) not in _workers:
            _workers[name, os.getpid()] = _Worker(name)
        return _workers[name, os.getpid()]
