"""`TenantLedger`: one tenant's ledger, all verbs."""

from __future__ import annotations

from ttt_memory.ledger.engine import Store
from ttt_memory.ledger.records import LedgerFinding
from ttt_memory.ledger.registry import TenantKey
from ttt_memory.ledger.reindex import Reindex


class TenantLedger(Reindex):
    """One tenant's ledger: documents in order, their passages, checkpoints, snapshots and history.

    Bound to its tenant for life and the only way to touch a tenant's rows. Safe to use from several threads and
    processes. The verbs are in the base classes: `Documents` (reading), `Append` (writing), `Passages` (what the
    notepad reads), `Checkpoints`, `Snapshots`, `History` (restore, forget, rederive, gc), `Fork`, `Verify`,
    `Reindex`.

    Every method may raise StoreUnavailableError, CorruptionError, ClosedError, and TenantNotFoundError once the tenant
    was dropped.
    """

    @classmethod
    def bind(cls, store: Store, tenant: TenantKey) -> TenantLedger:
        """The ledger of a tenant found in the registry."""
        return cls(store, tenant=tenant.id, name=tenant.name, key=tenant.key)

    def verify(self) -> list[LedgerFinding]:
        """Check everything stored against everything else; an empty list is a whole ledger."""
        with self._read() as connection:
            return list(self._verify(connection))
