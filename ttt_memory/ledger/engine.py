"""Connections and transactions: the dialects' settings, and database exceptions as typed errors."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc, func, make_url, select
from sqlalchemy.pool import ConnectionPoolEntry, StaticPool

from ttt_memory.errors import (
    ClosedError,
    ConflictError,
    CorruptionError,
    InvalidInputError,
    MissingExtraError,
    StoreUnavailableError,
    TTTMemoryError,
)
from ttt_memory.ledger.schema import metadata

BUSY_MILLIS = 30_000
TRUNCATE_MILLIS = 5_000
_PAGES = ("page_count", "page_size")
_ERASURES = ("user_version", "application_id")
_WRITES = "ttt_writes"
_FIXES = {
    "locked": "Another process holds the database; wait for it or close it, then retry.",
    "disk is full": "Make room on its disk, then retry; what was stored before is still there.",
    "readonly": "Make the file and its folder writable for you, or work on a copy of the file.",
    "unable to open": "Check that it is no folder, and that its folder exists and may be written by you; a memory on a "
    "read-only disk has to be copied first.",
    "": "Check that the path or server exists, that it can be written and that its disk has room.",
}
_UNREADABLE = (UnicodeDecodeError, exc.NoResultFound)
"""Bytes that are no text, also in SQLite's own message; an index that names a row which is not there."""
_CORRUPT = ("malformed", "not a database", "database corruption", "invalid page", "could not read block")


class Store:
    """One database: `read()` and `write()` give a connection inside a transaction.

    Readers see one consistent state. Writers on SQLite begin IMMEDIATE (a deferred writer loses updates or fails with
    "database is locked"); on PostgreSQL they must lock the tenant's row first, which `TenantBase` does.
    """

    def __init__(self, url: str) -> None:
        self.url = _parse(url)
        self.shown = self.url.render_as_string(hide_password=True)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.path = _sqlite_path(self.url) if self.sqlite else None
        # One connection is all there is of a `:memory:` database, so its transactions must take turns.
        self._turns = threading.RLock() if self.sqlite and self.path is None else None
        self._engine: Engine | None = self._create()
        if self.sqlite:
            self._reader = self._engine.execution_options()
            self._writer = self._engine.execution_options(**{_WRITES: True})
        else:
            self._reader = self._engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            self._writer = self._engine.execution_options(isolation_level="READ COMMITTED")

    def _create(self) -> Engine:
        if not self.sqlite:
            return create_engine(
                self.url, pool_pre_ping=True, hide_parameters=True, connect_args={"connect_timeout": 10}
            )
        options: dict[str, Any] = {
            "hide_parameters": True,
            "connect_args": {"timeout": BUSY_MILLIS / 1000, "check_same_thread": False},
        }
        if self.path is None:
            options["poolclass"] = StaticPool
        engine = create_engine(self.url, **options)
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine

    @contextlib.contextmanager
    def read(self) -> Iterator[Connection]:
        """A consistent view, without locks. Raises StoreUnavailableError or CorruptionError."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextlib.contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that commits at its end and rolls back on any exception. Raises as `read`, or ConflictError."""
        with self._transaction(writes=True) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self, *, writes: bool) -> Iterator[Connection]:
        self._open_engine()
        engine = self._writer if writes else self._reader
        with self.errors(), self._turns or contextlib.nullcontext(), engine.begin() as connection:
            yield connection

    def mark_residue(self, connection: Connection) -> None:
        """Note, in the transaction that deletes content, that the file must be rewritten afterwards."""
        if self.path is not None:
            erasures = int(connection.exec_driver_sql("PRAGMA user_version").scalar_one())
            connection.exec_driver_sql(f"PRAGMA user_version={erasures % 2**30 + 1}")

    def purge_residue(self) -> bool:
        """Rewrite an SQLite file that had content deleted, and empty its log; False where that is not possible now.

        `secure_delete` is not enough: it overwrites deleted cells, but not the copies that B-tree pages keep in their
        gaps after cells were moved to a sibling. Two numbers in the file's header, which are transactional, tell
        whether a deletion (`user_version`) has not been followed by a rewrite (`application_id`): a crash between
        them is made good on the next opening. The rewrite reads and writes the whole file once.
        """
        if self.path is None:
            return True
        try:
            with self._raw() as cursor:
                erasures, purged = (cursor.execute(f"PRAGMA {name}").fetchone()[0] for name in _ERASURES)
                if erasures == purged:
                    return True
                cursor.execute("VACUUM")
                cursor.execute(f"PRAGMA busy_timeout={TRUNCATE_MILLIS}")
                try:
                    busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
                finally:
                    cursor.execute(f"PRAGMA busy_timeout={BUSY_MILLIS}")
                if not busy:
                    cursor.execute(f"PRAGMA application_id={erasures}")
                return not busy
        except sqlite3.OperationalError:  # busy, or no room for the rewrite: the mark stays for the next opening
            return False

    @contextlib.contextmanager
    def _raw(self) -> Iterator[Any]:
        connection = self._open_engine().raw_connection()
        try:
            yield connection.cursor()
        finally:
            connection.close()

    def _open_engine(self) -> Engine:
        if self._engine is None:
            raise ClosedError("This ledger was closed.", fix="Open it again.", url=self.shown)
        return self._engine

    def size_bytes(self) -> int:
        """Bytes the database takes on disk (in memory for `:memory:`)."""
        if self.path is not None:
            files = (Path(f"{self.path}{suffix}") for suffix in ("", "-wal"))
            return sum(file.stat().st_size for file in files if file.exists())
        with self.read() as connection:
            if self.sqlite:
                pages, size = (connection.exec_driver_sql(f"PRAGMA {name}").scalar_one() for name in _PAGES)
                return int(pages) * int(size)
            sizes = (func.pg_total_relation_size(table.name) for table in metadata.sorted_tables)
            return sum(int(connection.execute(select(size)).scalar_one()) for size in sizes)

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Database exceptions raised inside become typed errors."""
        try:
            yield
        except TTTMemoryError:
            raise
        except (exc.DBAPIError, exc.TimeoutError, sqlite3.Error) as error:
            raise translate(error, self.shown) from error
        except _UNREADABLE as error:
            raise damaged(self.shown, str(error)) from error

    def close(self) -> None:
        """Close every connection; later use raises ClosedError."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.dispose()


def translate(error: Exception, shown: str) -> TTTMemoryError:
    """The typed error for a database exception; `shown` is the URL without its password."""
    reason = str(getattr(error, "orig", None) or error).strip()
    if any(word in reason for word in _CORRUPT):
        return damaged(shown, reason)
    if isinstance(error, exc.IntegrityError):
        return ConflictError(
            "Another writer changed the same rows.", why=reason, fix="Read the head again and retry.", url=shown
        )
    if isinstance(error, exc.DataError):
        return InvalidInputError("A value does not fit the database.", why=reason, url=shown)
    fix = next((fix for word, fix in _FIXES.items() if word in reason), _FIXES[""])
    return StoreUnavailableError(f"The database {shown} cannot be used.", why=reason, fix=fix, url=shown)


def damaged(shown: str, why: str) -> CorruptionError:
    """The error for a database that holds what was never written."""
    fix = "If this is a memory, restore it from a backup or an archive; if it is another file, give another name."
    return CorruptionError(f"The database {shown} is damaged.", why=why, fix=fix, url=shown)


def _parse(url: str) -> URL:
    try:
        parsed = make_url(url)
    except (exc.ArgumentError, ValueError) as error:
        raise InvalidInputError(
            "The store's URL cannot be read.",
            why="it is no database URL",
            fix="Use sqlite:///file.db or postgresql://…",
        ) from error
    if parsed.drivername in {"postgres", "postgresql", "postgresql+psycopg"}:
        try:
            import psycopg
        except ImportError as error:
            raise MissingExtraError("psycopg", extra="postgres", needed_for="A PostgreSQL store") from error
        del psycopg
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername in {"sqlite", "sqlite+pysqlite"}:
        return parsed
    raise InvalidInputError(
        f"The store's URL names {parsed.drivername!r}, which is not supported.",
        fix="Use sqlite:///file.db or postgresql://user@host/database.",
        drivername=parsed.drivername,
    )


def _sqlite_path(url: URL) -> Path | None:
    return None if url.database in {None, "", ":memory:"} else Path(str(url.database))


def _prepare_sqlite(dbapi: Any, _record: ConnectionPoolEntry) -> None:
    dbapi.isolation_level = None  # pysqlite would otherwise begin by itself, and never IMMEDIATE
    cursor = dbapi.cursor()
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.execute("PRAGMA synchronous=FULL")
        cursor.execute("PRAGMA foreign_keys=ON")
        cursor.execute("PRAGMA secure_delete=ON")
        cursor.execute(f"PRAGMA busy_timeout={BUSY_MILLIS}")
    finally:
        cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    writes = connection.get_execution_options().get(_WRITES, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
