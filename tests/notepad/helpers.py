"""A notepad with its ledger, and short ways to write into both."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from ttt_memory.ledger import DocumentRow, NewDocument, TenantLedger
from ttt_memory.notepad.embedders import Embedder
from ttt_memory.notepad.notepad import Notepad
from ttt_memory.types import Passage

T = TypeVar("T")


def finish(steps: Generator[Any, None, T]) -> T:
    """Run a generator to its end and return its value."""
    while True:
        try:
            next(steps)
        except StopIteration as stop:
            result: T = stop.value
            return result


class Pad(Notepad):
    """A notepad that can also be written to, as the memory does it."""

    def __init__(self, ledger: TenantLedger, embedder: Embedder) -> None:
        super().__init__(ledger, embedder)
        self.ledger = ledger

    def write(self, text: str, **fields: Any) -> DocumentRow:
        """Commit a document with its passages, without making it findable."""
        passages = finish(self.prepare(text))
        key = self.ledger.content_key(text, fields.get("stream"), fields.get("sequence"))
        new = NewDocument(text=text, content_key=key, tokens=len(text), **fields)
        return self.ledger.append(new, passages)

    def put(self, text: str, **fields: Any) -> str:
        """Commit a document and make it findable. Returns its id."""
        row = self.write(text, **fields)
        self.refresh()
        return row.id

    def assert_exact(self, hits: list[Passage]) -> None:
        """Every hit quotes its source to the character, best first."""
        for hit in hits:
            assert self.ledger.text(hit.document_id)[hit.start : hit.end] == hit.text
        assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
