"""The ledger: verbatim, ordered documents of each tenant, and what is derived from them."""

from ttt_memory.ledger.ledger import Ledger
from ttt_memory.ledger.records import (
    CheckpointRow,
    Counts,
    DocumentRow,
    ForgetResult,
    Head,
    LedgerFinding,
    LiveMetadata,
    NewDocument,
    NewPassage,
    PassageRow,
    PassageText,
    PassageVectors,
    Point,
    SnapshotRow,
)
from ttt_memory.ledger.tenant import TenantLedger

__all__ = [
    "CheckpointRow",
    "Counts",
    "DocumentRow",
    "ForgetResult",
    "Head",
    "Ledger",
    "LedgerFinding",
    "LiveMetadata",
    "NewDocument",
    "NewPassage",
    "PassageRow",
    "PassageText",
    "PassageVectors",
    "Point",
    "SnapshotRow",
    "TenantLedger",
]
