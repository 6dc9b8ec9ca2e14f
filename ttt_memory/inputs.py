"""What a caller hands to `ingest`, turned into checked documents."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.types import Document, Source


def documents(
    source: Source | Iterable[Source], *, metadata: Mapping[str, Any] | None, observed_at: datetime | None
) -> Iterator[Document]:
    """Checked documents of a source, in order. `metadata` is added to each, its own keys winning.

    Raises:
        InvalidDocumentError: not a text, path or document; empty; not encodable; metadata that is not JSON.
        UnsupportedFileError: a file of a type that no loader reads.
    """
    if isinstance(source, Path):
        from ttt_memory.loaders import load

        for document in load(source):
            yield check(_with(document, metadata, observed_at))
    elif isinstance(source, str | Document):
        document = source if isinstance(source, Document) else _document(source)
        yield check(_with(document, metadata, observed_at))
    elif isinstance(source, Iterable) and not isinstance(source, bytes | bytearray | Mapping):
        for item in source:
            yield from documents(item, metadata=metadata, observed_at=observed_at)
    else:
        raise InvalidDocumentError(
            f"Cannot ingest a {type(source).__name__}.",
            fix="Give a str (text), a Path (a file), a Document, or an iterable of these; decode bytes first.",
        )


def is_single(source: object) -> bool:
    """Whether `ingest` gives one receipt for this source, not a list."""
    if isinstance(source, Path):
        from ttt_memory.loaders import gives_one

        return gives_one(source)
    return isinstance(source, str | Document)


def check(document: Document) -> Document:
    """Raise InvalidDocumentError unless the document can be kept verbatim."""
    if not document.text.strip():
        raise InvalidDocumentError("The document is empty.", why="it has no character that is not white space")
    try:
        document.text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidDocumentError(
            f"The document cannot be kept verbatim: character {error.start} is a lone surrogate.",
            why="it is not valid Unicode text, usually bytes decoded with errors='surrogateescape'",
            fix="Decode the bytes with their real encoding, or with errors='replace'.",
            position=error.start,
        ) from error
    try:
        json.dumps(document.metadata, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise InvalidDocumentError(
            "The metadata cannot be kept.",
            why=str(error),
            fix="Use JSON values: text, numbers, booleans, lists, dicts.",
        ) from error
    if document.sequence is not None and document.stream is None:
        raise InvalidDocumentError("A sequence needs the stream it counts in.", fix="Give Document(stream=...).")
    if document.stream is not None and not document.stream.strip():
        raise InvalidDocumentError("The stream has no name.")
    return document


def _document(text: str) -> Document:
    try:
        return Document(text=text)
    except ValidationError as error:
        raise InvalidDocumentError("The document is not valid.", why=str(error)) from error


def _with(document: Document, metadata: Mapping[str, Any] | None, observed_at: datetime | None) -> Document:
    changes: dict[str, Any] = {}
    if metadata:
        changes["metadata"] = {**metadata, **document.metadata}
    if observed_at is not None and document.observed_at is None:
        changes["observed_at"] = observed_at
    return Document(**{**document.model_dump(), **changes}) if changes else document
