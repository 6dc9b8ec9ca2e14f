"""Tenants by name: the only statements that are not bound to one tenant."""

from __future__ import annotations

import hashlib
import secrets
from typing import NamedTuple

from sqlalchemy import Connection, insert, select

from ttt_memory.errors import ConflictError
from ttt_memory.ledger import owners
from ttt_memory.ledger.base import ROOT_BRANCH
from ttt_memory.ledger.engine import Store
from ttt_memory.ledger.schema import branches, tenants, uploads
from ttt_memory.ledger.values import name_bytes, now_micros


class TenantKey(NamedTuple):
    """What binds a handle to a tenant."""

    id: int
    name: str
    key: bytes
    ready: bool


class Upload(NamedTuple):
    """Unfinished work and its owner."""

    tenant: TenantKey
    kind: str
    subject: str
    owner: str
    started_at: int


_COLUMNS = (tenants.c.id, tenants.c.name, tenants.c.key, tenants.c.ready)


def find(store: Store, name: str) -> TenantKey | None:
    """The tenant with this name, finished or not. Raises InvalidInputError for a name that no tenant can have."""
    with store.read() as connection:
        return find_in(connection, name)


def find_in(connection: Connection, name: str) -> TenantKey | None:
    """The same inside a transaction."""
    row = connection.execute(select(*_COLUMNS).where(tenants.c.name_key == _name_key(name_bytes(name)))).one_or_none()
    return None if row is None else TenantKey(row.id, name, row.key, row.ready)


def name_columns(name: str) -> dict[str, bytes]:
    """The columns that hold a tenant's name."""
    data = name_bytes(name)
    return {"name": data, "name_key": _name_key(data)}


def create(store: Store, name: str, *, ready: bool = True) -> TenantKey:
    """A new tenant; unfinished (a fork, an import) where not `ready`. Raises ConflictError where the name is taken."""
    columns, now = name_columns(name), now_micros()
    with store.write() as connection:
        if find_in(connection, name) is not None:
            raise ConflictError(f"Tenant {name!r} exists already.", fix="Choose another name.", tenant=name)
        key = secrets.token_bytes(32)
        id = connection.execute(
            insert(tenants)
            .values(
                **columns,
                key=key,
                ready=ready,
                version=0,
                epoch=0,
                branch=ROOT_BRANCH,
                head_position=0,
                next_position=1,
                next_passage=1,
                relearning=False,
                created_at=now,
            )
            .returning(tenants.c.id)
        ).scalar_one()
        connection.execute(insert(branches).values(tenant=id, branch=ROOT_BRANCH, parent=None, fork_position=0))
        if not ready:
            owner = owners.this_process()
            connection.execute(insert(uploads).values(tenant=id, kind="fork", subject="", owner=owner, started_at=now))
    return TenantKey(id, name, key, ready)


def names(store: Store) -> list[str]:
    """Names of all finished tenants, sorted."""
    with store.read() as connection:
        return sorted(
            row.decode() for row in connection.execute(select(tenants.c.name).where(tenants.c.ready)).scalars()
        )


def unfinished(store: Store) -> list[Upload]:
    """Every upload in progress or left over."""
    query = select(*_COLUMNS, uploads.c.kind, uploads.c.subject, uploads.c.owner, uploads.c.started_at)
    with store.read() as connection:
        rows = connection.execute(query.join_from(uploads, tenants, uploads.c.tenant == tenants.c.id)).all()
    return [
        Upload(TenantKey(id, name.decode(), key, ready), kind, subject, owner, started_at)
        for id, name, key, ready, kind, subject, owner, started_at in rows
    ]


def _name_key(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
