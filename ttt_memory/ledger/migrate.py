"""Bring a database to the present schema, by Alembic, on opening."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from ttt_memory.errors import StoreVersionError
from ttt_memory.ledger.engine import Store
from ttt_memory.ledger.schema import VERSION_TABLE

HEAD = "0002"
KNOWN = frozenset({"0001", HEAD})
_LOCK = 0x7474745F  # any number: the same for every process that migrates


def migrate(store: Store) -> None:
    """Create or upgrade the tables; idempotent and race-free. Raises StoreVersionError for a newer release's store."""
    with store.read() as connection:
        if _revision(connection, store) == HEAD:
            return
    with store.write() as connection:
        if not store.sqlite:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if _revision(connection, store) != HEAD:
            _upgrade(connection)


def _revision(connection: Connection, store: Store) -> str | None:
    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    revision: str | None = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar_one_or_none()
    if revision is not None and revision not in KNOWN:
        raise StoreVersionError(
            f"The database {store.shown} was written by a newer release of ttt-memory.",
            why=f"its schema revision is {revision}, the newest one known here is {HEAD}",
            fix="Upgrade ttt-memory.",
            revision=revision,
        )
    return revision


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)
