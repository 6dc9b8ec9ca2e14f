"""`Ledger`: a database of tenants."""

from __future__ import annotations

import contextlib
import uuid
from types import TracebackType

from ttt_memory.errors import ConflictError, StoreUnavailableError, TenantNotFoundError
from ttt_memory.ledger import owners, registry
from ttt_memory.ledger.engine import Store
from ttt_memory.ledger.migrate import migrate
from ttt_memory.ledger.tenant import TenantLedger
from ttt_memory.ledger.values import now_micros


class Ledger:
    """A database of tenants, on SQLite or PostgreSQL. Threads may share it; a process that holds one must not fork."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @classmethod
    def open(cls, url: str) -> Ledger:
        """Open a database, creating or upgrading its tables, and remove what dead processes left half done.

        Args:
            url: `sqlite:///file.db`, `sqlite://` (in memory) or `postgresql://user@host/database`.

        Raises InvalidInputError, MissingExtraError, StoreUnavailableError, StoreVersionError, CorruptionError.
        """
        store = Store(url)
        try:
            migrate(store)
            ledger = cls(store)
            ledger.sweep()
            store.purge_residue()
        except BaseException:
            store.close()
            raise
        return ledger

    def tenant(self, name: str, *, create: bool = True) -> TenantLedger:
        """The ledger of a tenant, made if it is new. Raises TenantNotFoundError where it is not to be made.

        Raises ConflictError while a fork is being copied into that name.
        """
        found = registry.find(self.store, name)
        if found is None and create:
            try:
                found = registry.create(self.store, name)
            except ConflictError:  # another process was first
                found = registry.find(self.store, name)
        if found is None:
            raise TenantNotFoundError(f"There is no tenant {name!r} in this store.", tenant=name)
        if not found.ready:
            raise ConflictError(f"Tenant {name!r} is being copied and not whole yet.", fix="Wait until the fork ends.")
        return TenantLedger.bind(self.store, found)

    def begin_import(self, name: str) -> TenantLedger:
        """A tenant that nobody can open until `end_import(name)` names it; swept if this process dies before.

        Raises ConflictError where a tenant of that name has documents or snapshots, or is being copied.
        """
        found = registry.find(self.store, name)
        if found is not None:
            TenantLedger.bind(self.store, found).check_replaceable()
        unseen = registry.create(self.store, f"import {uuid.uuid4().hex}", ready=False)
        return TenantLedger.bind(self.store, unseen)

    def tenants(self) -> list[str]:
        """Names of all tenants, sorted."""
        return registry.names(self.store)

    def sweep(self) -> int:
        """Remove what dead processes left half done (documents, checkpoints, forks, imports). Returns their number."""
        now = now_micros()
        dead = [item for item in registry.unfinished(self.store) if owners.is_dead(item.owner, item.started_at, now)]
        for item in dead:
            # Another process swept it, or nothing can be written now: it stays unseen until a later opening.
            with contextlib.suppress(TenantNotFoundError, StoreUnavailableError):
                TenantLedger.bind(self.store, item.tenant).discard(item.kind, item.subject)
        return len(dead)

    def size_bytes(self) -> int:
        """Bytes that the whole database takes."""
        return self.store.size_bytes()

    def close(self) -> None:
        """Close every connection. Later use raises ClosedError."""
        self.store.close()

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
