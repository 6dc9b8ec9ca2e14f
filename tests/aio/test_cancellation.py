"""Cancelled at any await, a verb has done its work or left no trace, and nothing of it runs on."""

import asyncio
import random
import threading
import time

import anyio
import pytest

from tests.aio.helpers import open_tiny
from tests.memory.helpers import text
from ttt_memory import CompressedMemory
from ttt_memory.errors import TenantNotFoundError
from ttt_memory.lane import interruptible, lane_for
from ttt_memory.worker_threads import in_thread, writers


def lane_is_idle() -> bool:
    """Whether a job given to the compute lane now would be the only one."""
    from ttt_memory import lane

    worker = lane._worker("compute")
    with worker._wake:
        return not worker._waiting


async def check_after_cancellation(memory, steps) -> None:
    """Nothing runs: no step is reported any more, the write lock is free, the lane has no job."""
    seen = len(steps)
    handle = memory._memory._handle
    assert handle._lock.acquire(blocking=False)
    handle._lock.release()
    assert lane_is_idle()
    await anyio.sleep(0.01)
    assert len(steps) == seen


@pytest.mark.anyio
async def test_fifty_random_points_of_ingest_and_forget(tmp_path):
    draw = random.Random(20261122)
    texts, cut = set(), 0
    async with await open_tiny(tmp_path) as memory:
        longest = 0.05
        for number in range(25):  # on each of two event loops
            body = text(number, draw.choice([15, 40, 100]))
            before = {d.id for d in await memory.documents()}
            steps = []
            started = time.perf_counter()
            with anyio.move_on_after(draw.uniform(0, longest)) as scope:
                await memory.ingest(body, progress=steps.append)
                longest = max(longest, time.perf_counter() - started)
            if scope.cancelled_caught:
                cut += 1
                await check_after_cancellation(memory, steps)
            new = {d.id for d in await memory.documents()} - before
            assert len(new) == 1 if not scope.cancelled_caught else len(new) <= 1
            for document_id in new:
                assert (await memory.get(document_id)).text == body
                assert any(hit.document_id == document_id for hit in await memory.search(f"Note {number}.", limit=20))
            if number % 5 == 4:
                chosen = draw.choice(await memory.documents()).id
                with anyio.move_on_after(draw.uniform(0, longest)):
                    await memory.forget(chosen)
            report = await memory.verify()
            assert report.ok, report.findings
        assert cut > 5
        await memory.ingest(text(1000))  # takes up all that was left unread
        assert all(d.learned for d in await memory.documents())
        assert not (await memory.stats()).relearning
        assert (await memory.verify(replay=True)).ok
        texts = [(await memory.get(d.id)).text for d in await memory.documents()]
        digest = (await memory.stats()).digest
    (tmp_path / "fresh").mkdir()
    async with await open_tiny(tmp_path / "fresh") as fresh:
        await fresh.ingest(texts)
        assert (await fresh.stats()).digest == digest


@pytest.mark.anyio
@pytest.mark.parametrize("verb", ["ask", "score", "verify", "stream", "snapshot", "restore", "rederive"])
async def test_every_long_verb_stops(tmp_path, verb):
    """On a memory with enough in it for a verb to take a while, cancellation comes long before the end of it."""
    draw = random.Random(verb)
    async with await open_tiny(tmp_path) as memory:
        await memory.snapshot("empty")
        await memory.ingest([text(n, 100) for n in range(3)])
        await memory.snapshot("full")

        async def stream():
            async for _ in await memory.ask("Note 1?", stream=True, answerer="generate"):
                pass

        calls = {
            "ask": lambda: memory.ask("Note 1?", mode="weights"),
            "score": lambda: memory.score(text(7, 300)),
            "verify": lambda: memory.verify(replay=True),
            "stream": stream,
            "snapshot": lambda: memory.snapshot(None),
            "restore": lambda: memory.restore(draw.choice(["empty", "full"])),
            "rederive": memory.rederive,
        }
        for delay in (0.0, 0.002, 0.01, 0.05):
            with anyio.move_on_after(delay):
                await calls[verb]()
            await check_after_cancellation(memory, [])
        await memory.restore("full")
        assert (await memory.verify(replay=True)).ok
        assert len(await memory.documents()) == 3


@pytest.mark.anyio
async def test_a_stream_cancelled_between_two_pieces_is_closed(tmp_path):
    async with await open_tiny(tmp_path) as memory:
        await memory.ingest(text(1, 100))
        stream = await memory.ask("Note 1?", stream=True, answerer="generate")
        await anext(stream)
        with anyio.CancelScope() as scope:
            scope.cancel()
            await anext(stream)
        await check_after_cancellation(memory, [])
        with pytest.raises(StopAsyncIteration):
            await anext(stream)


@pytest.mark.anyio
async def test_cancelled_opens_and_forks_leave_no_open_handle_and_no_half_tenant(tmp_path, monkeypatch):
    opened, closed = [], []
    init, close = CompressedMemory.__init__, CompressedMemory.close
    monkeypatch.setattr(CompressedMemory, "__init__", lambda self, *a: (opened.append(self), init(self, *a))[1])
    monkeypatch.setattr(CompressedMemory, "close", lambda self: (closed.append(self), close(self))[1])
    draw = random.Random(5)
    kept = []
    for number in range(10):
        with anyio.move_on_after(draw.uniform(0, 0.05)):
            kept.append(await open_tiny(tmp_path, f"t{number}"))
    assert {id(m) for m in opened} - {id(m) for m in closed} == {id(m._memory) for m in kept}
    async with await open_tiny(tmp_path, "source") as source:
        await source.ingest(text(1, 100))
        for number in range(10):
            with anyio.move_on_after(draw.uniform(0, 0.05)):
                kept.append(await source.fork(f"fork{number}"))
        for number in range(10):
            try:
                source._memory._handle.ledger.tenant(f"fork{number}", create=False)
            except TenantNotFoundError:
                continue
            async with await open_tiny(tmp_path, f"fork{number}") as copy:
                assert len(await copy.documents()) == 1
                assert (await copy.verify(replay=True)).ok
    for memory in kept:
        await memory.close()
    assert {id(m) for m in opened} == {id(m) for m in closed}


@pytest.mark.anyio
async def test_a_call_that_waits_behind_a_long_one_is_cancelled_at_once(tmp_path):
    async with await open_tiny(tmp_path, "long") as long, await open_tiny(tmp_path, "short") as short:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(long.ingest, text(1, 8000))
            while not await long.documents():
                await anyio.sleep(0.01)
            with anyio.move_on_after(0.02) as scope:
                await short.ingest(text(2, 300))
            assert scope.cancelled_caught
            assert not (await long.documents())[0].learned
            tasks.cancel_scope.cancel()
        for memory in (long, short):
            assert (await memory.verify()).ok


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_asyncio_s_own_cancellation_waits_for_the_thread_too(tmp_path):
    """task.cancel() and asyncio.timeout() know nothing of anyio's scopes."""
    memory = await open_tiny(tmp_path)
    steps = []
    for number in range(10):
        task = asyncio.create_task(memory.ingest(text(number, 300), progress=steps.append))
        await asyncio.sleep(0.01 * (number + 1))
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()  # the impatient cancel twice
        with pytest.raises(asyncio.CancelledError):
            await task
        await check_after_cancellation(memory, steps)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await memory.ingest(text(100, 400))
    await memory.close()


@pytest.mark.anyio
async def test_cancelled_before_its_thread_began_a_verb_never_runs():
    ran, gate, started = [], threading.Event(), threading.Event()

    limiter = anyio.CapacityLimiter(1)

    async def first():
        await in_thread(lambda: (started.set(), gate.wait()), limiter=limiter)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(first)
        await anyio.to_thread.run_sync(started.wait)
        with anyio.move_on_after(0.01):
            await in_thread(lambda: ran.append(1), limiter=limiter)
        gate.set()
    assert ran == []


@pytest.mark.anyio
async def test_what_nobody_receives_is_discarded():
    dropped, started = [], threading.Event()

    def slow():
        started.set()
        time.sleep(0.05)
        return "result"

    with anyio.move_on_after(0.01):
        await in_thread(slow, limiter=writers(), discard=dropped.append)
    assert started.is_set()
    assert dropped == ["result"]


def test_a_cancelled_job_of_the_lane_does_not_wait_for_older_ones():
    stop, begun, closed = threading.Event(), threading.Event(), []

    def endless():
        while not stop.is_set():
            begun.set()
            time.sleep(0.001)
            yield

    def younger():
        try:
            yield
        finally:
            closed.append(True)

    lane = lane_for(1)
    older = threading.Thread(target=lambda: lane.run(endless()))
    older.start()
    assert begun.wait(10)
    waited = []

    def check():
        waited.append(1)
        if len(waited) > 2:
            raise TimeoutError("cancelled")

    with interruptible(check), pytest.raises(TimeoutError, match="cancelled"):
        lane.run(younger())
    assert older.is_alive()
    assert not closed, "it had not begun"
    stop.set()
    older.join()
