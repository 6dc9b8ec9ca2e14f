"""How Python values become column values and back: UTF-8, JSON, microseconds, float32, HMAC keys."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ttt_memory.errors import CorruptionError, InvalidDocumentError, InvalidInputError

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TERM_BYTES = 128
MAX_INTEGER = 2**63 - 1


def to_bytes(text: str, what: str = "text") -> bytes:
    """UTF-8, refusing lone surrogates with InvalidDocumentError."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidDocumentError(
            f"The {what} cannot be stored as UTF-8.",
            why=f"character {error.start} is the lone surrogate {text[error.start]!r}",
            fix="Decode the source with errors='replace'.",
            offset=error.start,
        ) from error


def name_bytes(name: str) -> bytes:
    """A tenant's name as UTF-8; empty names and names with NUL raise InvalidInputError."""
    if not name or "\0" in name:
        raise InvalidInputError("A tenant's name must not be empty or contain NUL.", tenant=name)
    return to_bytes(name, "tenant's name")


def to_json(value: Mapping[str, Any], what: str = "metadata") -> str:
    """ASCII JSON. Keys that are no strings, NaN and values that JSON has no form for raise InvalidDocumentError."""
    bad = next((key for key in value if not isinstance(key, str)), None)
    try:
        text = json.dumps(dict(value), allow_nan=False, ensure_ascii=True, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidDocumentError(
            f"The {what} cannot be stored as JSON.",
            why=str(error),
            fix="Use strings, numbers, booleans, lists and maps.",
        ) from error
    if bad is not None:
        raise InvalidDocumentError(f"The {what} has a key that is no string.", why=repr(bad), fix="Use string keys.")
    return text


def from_json(text: str) -> dict[str, Any]:
    """The inverse of `to_json`. Raises CorruptionError."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise _damaged(str(error)) from error
    if not isinstance(value, dict):
        raise _damaged("it is no object")
    return value


def _damaged(why: str) -> CorruptionError:
    return CorruptionError(
        "A value of the store is damaged.", why=why, fix="Restore the store from a backup or an archive."
    )


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 UTC; naive times are taken as UTC."""
    aware = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return (aware - EPOCH) // timedelta(microseconds=1)


def from_micros(value: int) -> datetime:
    """The inverse of `to_micros`, in UTC. Raises CorruptionError."""
    try:
        return EPOCH + timedelta(microseconds=value)
    except OverflowError as error:
        raise _damaged(str(error)) from error


def now_micros() -> int:
    """The present."""
    return to_micros(datetime.now(UTC))


def to_floats(values: Sequence[float]) -> bytes:
    """Little-endian float32."""
    return np.asarray(values, dtype="<f4").tobytes()


def from_floats(data: bytes | None) -> tuple[float, ...]:
    """The inverse of `to_floats`; nothing stored is the empty tuple."""
    return tuple(np.frombuffer(data or b"", dtype="<f4").tolist())


def as_id(text: str) -> str:
    """The text if it can be an id or an address, else '', which no row has (PostgreSQL refuses to look for NUL)."""
    return text if text.isascii() and text.isalnum() else ""


def keyed(key: bytes, purpose: str, *parts: bytes) -> bytes:
    """HMAC-SHA256 under the tenant's key. Several parts are length-prefixed, so that no two lists collide."""
    message = purpose.encode() + b"\0"
    message += parts[0] if len(parts) == 1 else b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hmac.new(key, message, hashlib.sha256).digest()


def term_bytes(term: str) -> bytes:
    """A term as stored: UTF-8; where it is too long for an index, its beginning and 0xff, which UTF-8 never has."""
    data = term.encode("utf-8", "surrogatepass")
    return data if len(data) <= TERM_BYTES else data[:TERM_BYTES] + b"\xff"
