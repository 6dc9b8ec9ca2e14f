"""What `ingest` is given: files, folders, patterns and standard input, turned into documents one by one."""

from __future__ import annotations

import glob
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from ttt_memory.errors import InvalidDocumentError, TTTMemoryError
from ttt_memory.inputs import check
from ttt_memory.lane import check_interrupt
from ttt_memory.loaders import load, place
from ttt_memory.types import Document

STDIN = "-"
Failed = Callable[[str, TTTMemoryError], None]


class Options(NamedTuple):
    """What the command line adds to every document."""

    metadata: dict[str, Any]
    stream: str | None
    observed_at: datetime | None

    def on(self, document: Document) -> Document:
        """The document with these; its own values win."""
        return Document(
            text=document.text,
            metadata={**self.metadata, **document.metadata},
            observed_at=document.observed_at or self.observed_at,
            stream=document.stream or self.stream,
            sequence=document.sequence,
            origin=document.origin,
        )


def expand(given: Sequence[str]) -> list[str]:
    """Paths with patterns replaced by what they match, `**` included; a path that exists is no pattern."""
    found: list[str] = []
    for item in given:
        if item == STDIN or Path(item).exists() or not glob.has_magic(item):
            found.append(item)
        else:
            found += sorted(glob.glob(item, recursive=True)) or [item]
    return list(dict.fromkeys(found))


class Sources:
    """Documents of the given sources, in order; what cannot be read is reported and left out."""

    def __init__(self, given: Sequence[str], options: Options) -> None:
        self._given, self._options = expand(given), options
        self._stdin = _read_stdin() if STDIN in given else ""

    def documents(self, failed: Failed) -> Iterator[tuple[str, Document]]:
        """Pairs of a name for people and a checked document."""
        for source in self._given:
            try:
                for document in self._load(source, failed):
                    check_interrupt()
                    name = place(document.metadata) or source
                    try:
                        yield name, check(self._options.on(document))
                    except InvalidDocumentError as error:
                        failed(name, error)
            except TTTMemoryError as error:
                failed(source, error)

    def _load(self, source: str, failed: Failed) -> Iterator[Document]:
        if source == STDIN:
            return iter([Document(text=self._stdin)])
        return load(Path(source), on_skip=lambda path, error: failed(str(path), error))


def _read_stdin() -> str:
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidDocumentError(
            f"Standard input is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}.",
            fix="Convert it first, e.g. with iconv.",
            position=error.start,
        ) from error
