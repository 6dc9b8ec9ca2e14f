"""Every failure of a store is a typed error that says why, without secrets."""

from __future__ import annotations

import random
import sqlite3
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.ledger.helpers import add, dump
from ttt_memory.errors import (
    ClosedError,
    CorruptionError,
    InvalidInputError,
    MissingExtraError,
    StoreUnavailableError,
    StoreVersionError,
    TTTMemoryError,
)
from ttt_memory.ledger import Ledger, TenantLedger
from ttt_memory.ledger.schema import VERSION_TABLE


@pytest.mark.parametrize("url", ["", "nonsense", "mysql://h/d", "sqlite+aiosqlite:///x", "http://h/d"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidInputError):
        Ledger.open(url)


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError, match="unable to open"):
        Ledger.open(f"sqlite:///{tmp_path / 'no' / 'such' / 'memory.db'}")


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailableError):
        Ledger.open(f"sqlite:///{tmp_path}")


def test_not_a_database(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    file.write_bytes(b"this is a text file, and not a short one " * 100)
    with pytest.raises(CorruptionError):
        Ledger.open(f"sqlite:///{file}")
    assert file.read_bytes().startswith(b"this is")


def test_damaged_pages(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    with Ledger.open(f"sqlite:///{file}") as ledger:
        for number in range(50):
            add(ledger.tenant("a"), f"text {number} " * 300)
    data = bytearray(file.read_bytes())
    data[8 * 4096 :] = b"\xa5" * (len(data) - 8 * 4096)
    file.write_bytes(bytes(data))
    with pytest.raises(CorruptionError), Ledger.open(f"sqlite:///{file}") as ledger:
        dump(ledger.tenant("a", create=False))


def test_read_only(tmp_path: Path) -> None:
    file = tmp_path / "memory.db"
    with Ledger.open(f"sqlite:///{file}") as ledger:
        add(ledger.tenant("a"), "text")
    with Ledger.open(f"sqlite:///file:{file}?mode=ro&uri=true") as ledger:
        tenant = ledger.tenant("a")
        assert tenant.text(tenant.documents()[0].id) == "text"
        with pytest.raises(StoreUnavailableError, match="readonly"):
            add(tenant, "more")


def test_full_disk(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'memory.db'}") as ledger:
        tenant = ledger.tenant("a")
        add(tenant, "text")
        before = dump(tenant)
        with ledger.store.read() as connection:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        with ledger.store._raw() as cursor:
            cursor.execute(f"PRAGMA max_page_count={pages + 50}")
        with pytest.raises(StoreUnavailableError, match="full"):
            add(tenant, "large " * 1_000_000)
        assert dump(tenant) == before
        assert tenant.verify() == []


def test_what_is_stored_can_be_read_while_the_disk_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also after a process that died in the middle of a large document, whose rest cannot be swept now."""
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with Ledger.open(url) as ledger:
        tenant = ledger.tenant("a")
        add(tenant, "text")
        with monkeypatch.context() as patch:
            patch.setattr("ttt_memory.ledger.append.TRANSACTION_BYTES", 1 << 16)
            patch.setattr(TenantLedger, "_discard_document", lambda self, id: None)
            patch.setattr(TenantLedger, "_end_upload", lambda *_: (_ for _ in ()).throw(StoreUnavailableError("died")))
            with pytest.raises(StoreUnavailableError, match="died"):
                add(tenant, "large " * 30_000)
    monkeypatch.setattr("ttt_memory.ledger.owners.is_dead", lambda *_: True)
    full = StoreUnavailableError("database or disk is full")
    with monkeypatch.context() as patch:
        patch.setattr(TenantLedger, "_discard_document", lambda self, id: (_ for _ in ()).throw(full))
        with Ledger.open(url) as ledger:
            assert [ledger.tenant("a").text(row.id) for row in ledger.tenant("a").documents()] == ["text"]
    with Ledger.open(url) as ledger:
        assert ledger.sweep() == 0, "swept by this opening"
        assert ledger.tenant("a").verify() == []


def test_random_damage_gives_typed_errors_alone(tmp_path: Path) -> None:
    file, draw, wrong = tmp_path / "memory.db", random.Random(20261122), 0
    with Ledger.open(f"sqlite:///{file}") as ledger:
        ids = [add(ledger.tenant("a"), f"text {number} " * 60).id for number in range(6)]
        ledger.tenant("a").create_snapshot("here")
    whole = file.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(draw.choice([1, 20, 300])):
            data[draw.randrange(len(data))] = draw.randrange(256)
        for suffix in ("-wal", "-shm"):
            Path(f"{file}{suffix}").unlink(missing_ok=True)
        file.write_bytes(data)
        try:
            with Ledger.open(f"sqlite:///{file}") as ledger:
                dump(ledger.tenant("a"))
                ledger.tenant("a").verify()
                ledger.tenant("a").forget(ids[:1])
        except TTTMemoryError:
            wrong += 1
    assert wrong > 10


def test_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ttt_memory.ledger import engine

    monkeypatch.setattr(engine, "BUSY_MILLIS", 20)
    file = tmp_path / "memory.db"
    with Ledger.open(f"sqlite:///{file}") as ledger:
        tenant = ledger.tenant("a")
        holder = sqlite3.connect(file, isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        assert tenant.documents() == [], "readers are not held up"
        with pytest.raises(StoreUnavailableError, match="locked"):
            add(tenant, "text")
        holder.execute("ROLLBACK")
        holder.close()
        add(tenant, "text")


def test_a_newer_store_is_refused(url: str) -> None:
    with Ledger.open(url) as ledger, ledger.store.write() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(StoreVersionError) as error:
        Ledger.open(url)
    assert error.value.context["revision"] == "9999"


def test_passwords_stay_hidden() -> None:
    with pytest.raises(StoreUnavailableError) as error:
        Ledger.open("postgresql://me:hunter2@127.0.0.1:1/db")
    assert "hunter2" not in f"{error.value}{error.value.context}{error.value.__cause__}"
    assert "127.0.0.1" in str(error.value)


def test_texts_stay_out_of_messages(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    tenant = ledger.tenant("a")
    monkeypatch.setattr("ttt_memory.ledger.append.to_json", lambda _value: None)
    with pytest.raises(TTTMemoryError) as error:
        add(tenant, "a secret text")
    assert "secret" not in f"{error.value}{error.value.__cause__}"


def test_without_the_postgres_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match="postgres"):
        Ledger.open("postgresql://localhost/db")


def test_closed(url: str) -> None:
    ledger = Ledger.open(url)
    tenant = ledger.tenant("a")
    ledger.close()
    ledger.close()
    for call in (tenant.head, ledger.tenants, tenant.verify, lambda: add(tenant, "x")):
        with pytest.raises(ClosedError):
            call()
