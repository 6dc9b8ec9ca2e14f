"""The revisions make the tables of `schema.py`, on both databases; opening is race-free."""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tests.ledger.helpers import add
from ttt_memory.ledger import Ledger, migrate
from ttt_memory.ledger.schema import TENANT_TABLES, VERSION_TABLE, metadata, tenants


def test_revisions_make_the_present_schema(ledger: Ledger) -> None:
    with ledger.store.read() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        assert compare_metadata(context, metadata) == []


def test_known_revisions_are_those_in_the_folder() -> None:
    scripts = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    assert {script.revision for script in scripts.walk_revisions()} == migrate.KNOWN
    assert scripts.get_current_head() == migrate.HEAD


@pytest.mark.parametrize("table", TENANT_TABLES, ids=lambda table: table.name)
def test_the_tenant_is_in_every_primary_key(table: object) -> None:
    from sqlalchemy import Table

    assert isinstance(table, Table)
    assert next(column.name for column in table.primary_key) == "tenant"
    assert table.name.startswith("ttt_")


def test_no_table_is_left_out() -> None:
    assert {*TENANT_TABLES, tenants} == set(metadata.tables.values())


def test_sqlite_settings(tmp_path: Path) -> None:
    with Ledger.open(f"sqlite:///{tmp_path / 'memory.db'}") as ledger:
        for store in (ledger.store.read, ledger.store.write):
            with store() as connection:
                values = {
                    name: connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                    for name in ("journal_mode", "synchronous", "foreign_keys", "secure_delete")
                }
            assert values == {"journal_mode": "wal", "synchronous": 2, "foreign_keys": 1, "secure_delete": 1}


def _open(url: str) -> None:
    with Ledger.open(url) as ledger:
        add(ledger.tenant("acme"), "same")


def test_processes_that_open_at_once(url: str) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_open, args=(url,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    with Ledger.open(url) as ledger:
        assert ledger.tenants() == ["acme"]
        assert ledger.tenant("acme").counts().documents == 1
        assert ledger.size_bytes() > 0
