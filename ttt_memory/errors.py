"""Every error that ttt_memory raises on purpose.

    TTTMemoryError
    ├── InvalidInputError (ValueError)        an argument cannot be used
    │   ├── InvalidDocumentError              a document's text, bytes or metadata cannot be kept
    │   ├── InvalidFilterError                a `where` filter is malformed
    │   └── UnsupportedFileError              no loader for this type of file
    ├── NotFoundError (LookupError)
    │   ├── DocumentNotFoundError
    │   ├── SnapshotNotFoundError
    │   └── TenantNotFoundError
    ├── ConflictError                         another writer, or the same name with other content
    ├── RelearningError                       the weights are being rebuilt after `forget`
    ├── ClosedError                           the handle was closed
    ├── ModelError
    │   ├── ModelNotFoundError                the base weights are not on this machine
    │   ├── ModelFormatError                  a weights file cannot be read or does not fit
    │   ├── ModelMismatchError                the memory was written with another model
    │   └── DownloadError                     fetching weights failed
    ├── EndpointError                         a model behind a network endpoint gave no answer
    │   ├── EndpointAuthError                 it refused the key
    │   ├── EndpointUnavailableError          it cannot be reached, is too busy, failed or took too long
    │   └── EndpointReplyError                what it sent cannot be used, or broke off
    ├── StoreError
    │   ├── CorruptionError                   stored bytes are not what was written
    │   ├── StoreVersionError                 the store was written by a newer release
    │   └── StoreUnavailableError             the database cannot be reached or written
    └── MissingExtraError (ImportError)       an optional dependency is not installed

Each one says what happened, why, and what to do, and carries the values concerned in `context`.
"""

from __future__ import annotations

from typing import Any


class TTTMemoryError(Exception):
    """Base class of every error of this package.

    Args:
        what: one sentence: what could not be done.
        why: the cause, as far as it is known.
        fix: what the reader can do about it.
        context: the values concerned, for programs (`error.context["document_id"]`).
    """

    def __init__(self, what: str, *, why: str = "", fix: str = "", **context: Any) -> None:
        self.what, self.why, self.fix, self.context = what, why, fix, context
        super().__init__(what, why, fix)

    def __str__(self) -> str:
        parts = (self.what, f"Why: {self.why}" if self.why else "", f"What to do: {self.fix}" if self.fix else "")
        return "\n".join(part for part in parts if part)


class InvalidInputError(TTTMemoryError, ValueError):
    """An argument cannot be used."""


class InvalidDocumentError(InvalidInputError):
    """A document's text, bytes or metadata cannot be kept as they are."""


class InvalidFilterError(InvalidInputError):
    """A `where` filter is malformed."""


class UnsupportedFileError(InvalidInputError):
    """There is no loader for this type of file."""


class NotFoundError(TTTMemoryError, LookupError):
    """Something named does not exist in this tenant."""


class DocumentNotFoundError(NotFoundError):
    """No live document has this id."""


class SnapshotNotFoundError(NotFoundError):
    """No snapshot has this id or label."""


class TenantNotFoundError(NotFoundError):
    """The store holds no such tenant."""


class ConflictError(TTTMemoryError):
    """Another writer was first, or a name is taken by other content."""


class RelearningError(TTTMemoryError):
    """The fast weights are being rebuilt after `forget`; nothing learned may be shown until they are clean."""


class ClosedError(TTTMemoryError):
    """The memory handle was closed."""


class ModelError(TTTMemoryError):
    """Something is wrong with the base model."""


class ModelNotFoundError(ModelError):
    """The base weights are not on this machine."""


class ModelFormatError(ModelError):
    """A weights or tokenizer file cannot be read, or does not fit the model."""


class ModelMismatchError(ModelError):
    """The memory was written with another model than the one given."""


class DownloadError(ModelError):
    """Fetching weights failed or their checksum is wrong."""


class EndpointError(TTTMemoryError):
    """A model behind a network endpoint (an answerer or embedder) gave no answer. Never carries the key."""


class EndpointAuthError(EndpointError):
    """The endpoint refused the key, or wants one."""


class EndpointUnavailableError(EndpointError):
    """The endpoint cannot be reached, is too busy, failed or took too long, also when tried again."""


class EndpointReplyError(EndpointError):
    """What the endpoint sent cannot be used, or broke off."""


class StoreError(TTTMemoryError):
    """Something is wrong with the database."""


class CorruptionError(StoreError):
    """Stored bytes are not what was written."""


class StoreVersionError(StoreError):
    """The store was written by a release newer than this one."""


class StoreUnavailableError(StoreError):
    """The database cannot be reached, read or written."""


class MissingExtraError(TTTMemoryError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, *, extra: str, needed_for: str) -> None:
        super().__init__(
            f"{needed_for} needs the package {package!r}, which is not installed.",
            fix=f"pip install 'ttt-memory[{extra}]'",
            package=package,
            extra=extra,
        )
