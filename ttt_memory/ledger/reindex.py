"""Exchanging every passage of a tenant at once, for another embedder."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sqlalchemy import select

from ttt_memory.ledger.append import stored
from ttt_memory.ledger.documents import document_row
from ttt_memory.ledger.records import DocumentRow, NewPassage
from ttt_memory.ledger.schema import documents
from ttt_memory.ledger.verify import Verify


class Reindex(Verify):
    """The switch from one index to another."""

    def indexed_documents(self) -> list[DocumentRow]:
        """Every committed document in order of position, detached ones too: `restore` may bring them back."""
        query = select(documents).where(documents.c.tenant == self._tenant, documents.c.position.is_not(None))
        return self._rows(query.order_by(documents.c.position), None)

    def reindex(
        self,
        embedder: str,
        passages_of: Callable[[DocumentRow, str], Sequence[NewPassage]],
        *,
        expected_version: int | None = None,
    ) -> None:
        """Exchange the passages of every document and pin another embedder, in one transaction: all or nothing.

        Args:
            embedder: the new pin.
            passages_of: gives a document's new passages from its row and text; called inside the transaction, so it
                must have them ready.
            expected_version: as of `append`; raises ConflictError where another writer was first.
        """
        with self._write(expected_version) as (connection, _):
            query = select(documents).where(documents.c.tenant == self._tenant, documents.c.position.is_not(None))
            rows = connection.execute(query.order_by(documents.c.position)).mappings().all()
            for row in map(document_row, rows):
                new = passages_of(row, self._text(connection, row, 0, row.characters))
                self._check_passages(new, row.characters)
                self._delete_passages(connection, row.id)
                self._insert_passages(connection, row.id, stored(new))
            self._change(connection, embedder=embedder)
