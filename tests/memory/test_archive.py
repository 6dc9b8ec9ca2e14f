"""An archive restores the memory that it was taken of, every snapshot included; an import is all of it or nothing."""

import contextlib
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.memory.helpers import digest, open_tiny, text
from ttt_memory import CompressedMemory, Document
from ttt_memory.errors import ConflictError, CorruptionError, InvalidInputError, TenantNotFoundError
from ttt_memory.ledger import Ledger

WORKER = Path(__file__).with_name("import_worker.py")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Folder of a memory of twelve documents, two snapshots and a line that was left by `restore`."""
    folder = tmp_path_factory.mktemp("from")
    with open_tiny(folder) as memory:
        memory.ingest([text(number) for number in range(6)])
        memory.snapshot("half")
        memory.ingest([text(number) for number in range(6, 12)])
        memory.snapshot("left")
        memory.restore("half")
        memory.ingest([text(number) for number in range(20, 26)])
        memory.export(folder / "a.zip")
    return folder


@pytest.fixture
def archive(source):
    """That memory's archive, and its digest."""
    with open_tiny(source) as memory:
        return source / "a.zip", digest(memory)


def killed_imports(archive: Path, folder: Path, seed: int, kills: int) -> None:
    command = [sys.executable, str(WORKER), str(archive), str(folder), str(seed), str(kills)]
    subprocess.run(command, cwd=WORKER.parents[2], check=True, timeout=300, env=os.environ | {"OMP_NUM_THREADS": "1"})


def all_or_nothing(archive: Path, expected: str, url: str) -> bool:
    """Check what a killed import has left; whether it was finished."""
    with Ledger.open(url) as ledger:
        names = ledger.tenants()
        assert names in ([], ["a"])
        assert not list(ledger.store.path.parent.glob("*.partial"))
        if not names:
            assert b"Note " not in ledger.store.path.read_bytes(), "text of a memory that is not there"
            with pytest.raises(TenantNotFoundError):
                ledger.tenant("a", create=False)
    with CompressedMemory.open(url, tenant="a") if names else CompressedMemory.import_(archive, url) as memory:
        assert digest(memory) == expected
        assert [len(memory.documents()), *(s.documents for s in memory.snapshots())] == [12, 6, 12]
        assert memory.verify().ok
    return bool(names)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_import_leaves_all_or_nothing(archive, tmp_path):
    killed_imports(archive[0], tmp_path, 20261122, 4)
    outcomes = {all_or_nothing(*archive, f"sqlite:///{tmp_path / f'{number}.db'}") for number in range(4)}
    assert False in outcomes, "no import was killed before its end"


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_hundred_killed_imports(archive, tmp_path):
    killed_imports(archive[0], tmp_path, 1, 100)
    outcomes = {all_or_nothing(*archive, f"sqlite:///{tmp_path / f'{number}.db'}") for number in range(100)}
    assert False in outcomes


def test_an_import_is_unseen_until_it_is_whole(archive, tmp_path):
    url = f"sqlite:///{tmp_path / 'b.db'}"
    seen = []

    def look(_step):
        with Ledger.open(url) as ledger:
            seen.append(ledger.tenants())

    CompressedMemory.import_(archive[0], url, progress=look).close()
    assert seen
    assert set(map(tuple, seen)) == {()}
    with Ledger.open(url) as ledger:
        assert ledger.tenants() == ["a"]


def test_a_snapshot_of_a_line_that_was_left_comes_back_to_its_digest(source, archive, tmp_path):
    with open_tiny(source) as memory:
        taken = {s.label: (s.digest, s.documents) for s in memory.snapshots()}
    with CompressedMemory.import_(archive[0], "sqlite://") as copy:
        assert {s.label: (s.digest, s.documents) for s in copy.snapshots()} == taken
        assert [copy.get(d.id).text for d in copy.documents()] == [text(n) for n in (*range(6), *range(20, 26))]
        assert copy.stats().detached_documents == 6
        for label in ("left", "half", "left"):
            copy.restore(label)
            assert digest(copy) == taken[label][0]
            assert copy.verify(replay=True).ok
        assert [copy.get(d.id).text for d in copy.documents()] == [text(number) for number in range(12)]
        again = copy.export(tmp_path / "again.zip")
    with CompressedMemory.import_(again, "sqlite://") as third:
        assert {s.label: s.digest for s in third.snapshots()} == {label: d for label, (d, _) in taken.items()}
        assert digest(third) == taken["left"][0]


def test_what_was_forgotten_is_in_no_archive_and_its_snapshots_still_restore(tmp_path):
    with open_tiny(tmp_path) as memory:
        gone, _ = memory.ingest([text(1), text(2)])
        memory.snapshot("both")
        memory.restore("both")
        memory.ingest(Document(text=text(3), stream="s"))
        memory.forget(gone.document_id)
        path = memory.export(tmp_path / "a.zip")
        expected = digest(memory)
    with zipfile.ZipFile(path) as file:
        assert not any(text(1)[:20].encode() in file.read(name) for name in file.namelist())
    with CompressedMemory.import_(path, "sqlite://") as copy:
        assert digest(copy) == expected
        copy.restore("both")
        assert [copy.get(d.id).text for d in copy.documents()] == [text(2)]
        assert copy.verify(replay=True).ok


def test_an_archive_of_format_1_is_read(tmp_path):
    """As it was written before lines that were left were exported."""
    with open_tiny(tmp_path) as memory:
        memory.ingest(text(1))
        memory.snapshot("one")
        memory.ingest(text(2), learn=False)
        expected, path = digest(memory), memory.export(tmp_path / "a.zip")
    members = {}
    with zipfile.ZipFile(path) as file:
        for name in file.namelist():
            members[name] = file.read(name)
    manifest = json.loads(members.pop("manifest.json"))
    del manifest["at"], manifest["documents"], manifest["members"]["detached.jsonl"], members["detached.jsonl"]
    for name, keys in (("documents.jsonl", ("position", "after")), ("snapshots.jsonl", ("at",))):
        entries = [json.loads(line) for line in members[name].splitlines()]
        members[name] = b"".join(
            json.dumps({k: v for k, v in entry.items() if k not in keys}).encode() + b"\n" for entry in entries
        )
        del manifest["members"][name]
    with zipfile.ZipFile(tmp_path / "old.zip", "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
        file.writestr("manifest.json", json.dumps(manifest | {"format": 1}))
    with CompressedMemory.import_(tmp_path / "old.zip", "sqlite://") as copy:
        assert digest(copy) == expected
        assert [d.learn for d in copy.documents()] == [True, False]
        copy.restore("one")
        assert len(copy.documents()) == 1


def test_an_empty_tenant_gives_way_and_another_does_not(archive, tmp_path):
    url = f"sqlite:///{tmp_path / 'b.db'}"
    CompressedMemory.open(url, tenant="empty", model="tiny").close()
    with CompressedMemory.import_(archive[0], url, tenant="empty") as copy:
        assert digest(copy) == archive[1]
    with CompressedMemory.open(url, tenant="named", model="tiny") as other:
        other.snapshot("point")
    with pytest.raises(ConflictError, match="named"):
        CompressedMemory.import_(archive[0], url, tenant="named")
    with CompressedMemory.open(url, tenant="late", model="tiny") as late:
        with pytest.raises(ConflictError, match="late"):
            CompressedMemory.import_(
                archive[0], url, tenant="late", progress=lambda step: late.ingest("Faster.") and None
            )
        assert [late.get(d.id).text for d in late.documents()] == ["Faster."]
    with Ledger.open(url) as ledger:
        assert ledger.tenants() == ["empty", "late", "named"]


def test_a_damaged_archive_gives_typed_errors_and_no_tenant(archive, tmp_path):
    whole, draw = archive[0].read_bytes(), random.Random(20261122)
    path, url = tmp_path / "damaged.zip", f"sqlite:///{tmp_path / 'b.db'}"
    for _ in range(200):
        data = bytearray(whole[: draw.choice([len(whole), draw.randrange(len(whole))])])
        for _ in range(draw.choice([1, 5, 50])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        path.write_bytes(data)
        with contextlib.suppress(CorruptionError):  # a byte in the dates of the ZIP file's own headers does no harm
            CompressedMemory.import_(path, url, tenant="harmless").close()
            with Ledger.open(url) as ledger:
                ledger.tenant("harmless").drop()
    with Ledger.open(url) as ledger:
        assert ledger.tenants() == []
    with pytest.raises(InvalidInputError, match="Cannot read"):
        CompressedMemory.import_(tmp_path / "absent.zip", url)
