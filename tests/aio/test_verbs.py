"""The async class has the verbs of the sync one, on asyncio and on trio."""

import inspect

import anyio
import pytest

from tests.aio.helpers import open_tiny
from tests.memory.helpers import text
from ttt_memory import AsyncCompressedMemory, CompressedMemory, Document
from ttt_memory.errors import ClosedError, ConflictError, DocumentNotFoundError, InvalidInputError

pytestmark = pytest.mark.anyio


def public(cls):
    return {name for name in vars(cls) if not name.startswith("_")}


def test_both_classes_have_the_same_verbs_with_the_same_parameters():
    assert public(AsyncCompressedMemory) == public(CompressedMemory)
    for name in public(CompressedMemory) - {"tenant"}:
        ours, theirs = getattr(AsyncCompressedMemory, name), getattr(CompressedMemory, name)
        assert inspect.iscoroutinefunction(ours), name
        assert inspect.getdoc(ours), name
        assert inspect.signature(ours).parameters == inspect.signature(theirs).parameters, name


async def test_every_verb(tmp_path):
    seen = []
    async with await open_tiny(tmp_path) as memory:
        assert memory.tenant == "a"
        assert "Async" in repr(memory)
        receipt = await memory.ingest(text(1), metadata={"kind": "note"}, progress=seen.append)
        assert receipt.learned
        assert {step.stage for step in seen} == {"embed", "learn"}
        many = await memory.ingest([text(2), Document(text="The code of the vault is kestrel-4471.")])
        assert len(many) == 2
        assert (await memory.estimate(text(3))).tokens > 0
        assert (await memory.search("kestrel-4471"))[0].document_id == many[1].document_id
        assert [d.id for d in await memory.documents(where={"kind": "note"})] == [receipt.document_id]
        assert (await memory.get(receipt.document_id)).text == text(1)
        assert await memory.score(text(1)) > 0
        answer = await memory.ask("What is the code of the vault?")
        assert "kestrel-4471" in answer.text
        snap = await memory.snapshot("before")
        assert [s.label for s in await memory.snapshots()] == ["before"]
        async with await memory.fork("b", at=snap) as other:
            assert other.tenant == "b"
            assert len(await other.documents()) == 3
            assert (await other.stats()).digest == (await memory.stats()).digest
        report = await memory.forget(many[1].document_id)
        assert report.documents == (many[1].document_id,)
        await memory.restore("before")
        assert await memory.gc() == 0
        digest = (await memory.stats()).digest
        archive = await memory.export(tmp_path / "memory.zip")
        assert (await memory.rederive()).digest == digest
        assert (await memory.verify(replay=True)).ok
        async with await AsyncCompressedMemory.import_(
            archive, f"sqlite:///{tmp_path / 'other.db'}", tenant="c"
        ) as copy:
            assert (await copy.stats()).digest == digest


async def test_a_stream_gives_the_pieces_and_the_whole(tmp_path):
    async with await open_tiny(tmp_path) as memory:
        await memory.ingest(text(1))
        stream = await memory.ask("Note 1?", stream=True, answerer="generate")
        pieces = [piece async for piece in stream]
        assert len(pieces) > 1
        assert "".join(pieces).strip() == (await stream.answer()).text
        async with await memory.ask("Note 1?", stream=True, answerer="generate") as left:
            async for _ in left:
                break
        with pytest.raises(InvalidInputError, match="closed before"):
            await left.answer()
        assert (await memory.ask("Note 1?")).citations


async def test_errors_are_the_same(tmp_path):
    memory = await open_tiny(tmp_path)
    with pytest.raises(DocumentNotFoundError):
        await memory.get("nothing")
    with pytest.raises(InvalidInputError):
        await memory.ask("")
    await memory.ingest(Document(text="one", stream="s", sequence=1))
    with pytest.raises(ConflictError):
        await memory.ingest(Document(text="two", stream="s", sequence=1))

    def refuse(_step):
        raise OSError("the callback's own error")

    with pytest.raises(OSError, match="own error"):
        await memory.ingest(text(1), progress=refuse)
    await memory.close()
    await memory.close()
    with pytest.raises(ClosedError):
        await memory.documents()


async def test_many_tenants_at_once_get_what_each_would_get_alone(tmp_path):
    digests = {}

    async def use(number):
        async with await open_tiny(tmp_path, f"tenant-{number}") as memory:
            async with anyio.create_task_group() as tasks:
                for part in range(3):
                    tasks.start_soon(memory.ingest, text(10 * number + part, 20))
                    tasks.start_soon(memory.search, "river")
            assert sorted(d.position for d in await memory.documents()) == [1, 2, 3]
            order = [(await memory.get(d.id)).text for d in await memory.documents()]
            digests[number] = ((await memory.stats()).digest, order)

    async with anyio.create_task_group() as tasks:
        for number in range(8):
            tasks.start_soon(use, number)
    (tmp_path / "alone").mkdir()
    for number, (digest, order) in list(digests.items())[::4]:
        async with await open_tiny(tmp_path / "alone", f"tenant-{number}") as memory:
            await memory.ingest(order)
            assert (await memory.stats()).digest == digest


async def test_writes_take_turns_and_hold_one_thread(tmp_path):
    async with await open_tiny(tmp_path) as memory:
        from ttt_memory.worker_threads import writers

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(memory.ingest, text(number, 12))
            while len(await memory.documents()) < 5:
                assert writers().borrowed_tokens <= 1
                await anyio.sleep(0.001)
        assert len(await memory.documents()) == 40
