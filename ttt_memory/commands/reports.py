"""What commands print with `--json` where a verb has no type of its own for it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from ttt_memory.errors import TTTMemoryError
from ttt_memory.types import DocumentInfo, Receipt, Snapshot


class _Report(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ErrorInfo(_Report):
    """An error: its class in ttt_memory.errors, what happened, why, what to do, and the values concerned."""

    type: str
    what: str
    why: str
    fix: str
    context: dict[str, Any]

    @classmethod
    def of(cls, error: TTTMemoryError) -> Self:
        """Of an exception; values that JSON has no form for become text."""
        context = {
            key: value if isinstance(value, str | int | float | bool | list | dict | None) else str(value)
            for key, value in error.context.items()
        }
        return cls(type=type(error).__name__, what=error.what, why=error.why, fix=error.fix, context=context)


class ErrorReport(_Report):
    """Printed instead of a command's own report where it fails with exit code 1."""

    error: ErrorInfo


class Ingested(_Report):
    """One document of `ingest`, or a source that could not be read: either `receipt` or `error` is there."""

    source: str
    receipt: Receipt | None = None
    error: ErrorInfo | None = None


class IngestReport(_Report):
    """What `ingest` did, in order.

    Attributes:
        interrupted: stopped by Ctrl-C; `results` has what was finished before.
        stored_unlearned: ids of documents that the interruption found stored and not yet read by the weights; the
            next write goes on with them.
    """

    results: tuple[Ingested, ...]
    interrupted: bool = False
    stored_unlearned: tuple[str, ...] = ()


class LogEntry(_Report):
    """One event of the ledger: a document or a snapshot."""

    position: int
    at: datetime
    kind: Literal["document", "snapshot"]
    document: DocumentInfo | None = None
    snapshot: Snapshot | None = None


class Exported(_Report):
    """The archive that `export` wrote."""

    path: Path
    bytes: int


class Check(_Report):
    """One finding of `doctor`; `fix` is the line that mends it."""

    name: str
    state: Literal["ok", "optional", "missing"]
    detail: str
    fix: str = ""


class DoctorReport(_Report):
    """Result of `doctor`; `ok` unless something that every memory needs is missing."""

    ok: bool
    checks: tuple[Check, ...] = Field(default=())
