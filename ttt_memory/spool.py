"""Prepared passages on their way into the store, in a file without a name: gone with the process, whatever happens."""

from __future__ import annotations

import struct
import tempfile
from types import TracebackType
from typing import Self

from ttt_memory.ledger.records import NewPassage

_HEAD = struct.Struct("<qqqq")  # start, end, bytes of the embedding, bytes of the token vectors (-1: there are none)


class Spool:
    """Passages of documents, without their terms: those take more room than all else, and are quickly counted again."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by __exit__
        self._places: dict[str, tuple[int, int]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def __contains__(self, document_id: str) -> bool:
        return document_id in self._places

    def put(self, document_id: str, passages: list[NewPassage]) -> None:
        """Keep a document's passages."""
        self._places[document_id] = self._file.seek(0, 2), len(passages)
        for p in passages:
            vectors = p.token_vectors
            self._file.write(_HEAD.pack(p.start, p.end, len(p.embedding), -1 if vectors is None else len(vectors)))
            self._file.write(p.embedding + (vectors or b""))

    def get(self, document_id: str) -> list[NewPassage]:
        """A document's passages, their terms empty."""
        place, count = self._places[document_id]
        self._file.seek(place)
        passages = []
        for _ in range(count):
            start, end, embedding, vectors = _HEAD.unpack(self._file.read(_HEAD.size))
            body = self._file.read(embedding)
            passages.append(NewPassage(start, end, {}, body, None if vectors < 0 else self._file.read(vectors)))
        return passages
