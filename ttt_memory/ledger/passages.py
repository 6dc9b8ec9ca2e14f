"""What the notepad reads: vectors, postings, passages with their text. Passages of live documents only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import ColumnElement, Connection, Select, TextClause, select, text, tuple_

from ttt_memory.errors import CorruptionError
from ttt_memory.ledger.append import Append, stored
from ttt_memory.ledger.base import BATCH
from ttt_memory.ledger.documents import damaged, decode_chunk
from ttt_memory.ledger.records import Int32, Int64, NewPassage, PassageRow, PassageText, PassageVectors
from ttt_memory.ledger.schema import CHUNK_CHARACTERS, chunks, documents, passages, postings
from ttt_memory.ledger.values import as_id, from_json, from_micros, term_bytes

T = TypeVar("T")
COUNTED = 64
"""Terms counted by one statement: one has at most 500 parts in SQLite."""


class Passages(Append):
    """Passages and postings of the live lineage."""

    def _live_passages(self, *columns: ColumnElement[Any]) -> Select[Any]:
        owner = (documents.c.tenant == passages.c.tenant) & (documents.c.id == passages.c.document)
        return (
            select(*columns)
            .join_from(passages, documents, owner)
            .where(passages.c.tenant == self._tenant, documents.c.tenant == self._tenant)
            .where(documents.c.live_key.is_not(None))
        )

    def passage_vectors(self, document_ids: Sequence[str] | None = None) -> PassageVectors:
        """Every live passage in order of id: ids [N], document ids, term counts [N], float16 vectors [N, D].

        Of these documents only, where `document_ids` is given. Raises CorruptionError where vectors of different sizes
        are stored.
        """
        columns = (passages.c.id, passages.c.document, passages.c.terms, passages.c.embedding)
        query = self._live_passages(*columns).order_by(passages.c.id)
        with self._read() as connection:
            if document_ids is None:
                rows = list(connection.execute(query).all())
            else:
                some = batched(list({as_id(id) for id in document_ids}), BATCH)
                rows = [row for few in some for row in connection.execute(query.where(passages.c.document.in_(few)))]
                rows.sort(key=lambda row: row.id)
        width = len(rows[0].embedding) if rows else 0
        odd = next((row for row in rows if len(row.embedding) != width), None)
        if odd is not None or width % 2:
            raise CorruptionError(
                "Stored vectors are of different sizes.",
                why=f"expected {width} bytes" + (f", passage {odd.id} has {len(odd.embedding)}" if odd else ""),
                fix="Rebuild the notepad's passages.",
            )
        vectors = np.frombuffer(b"".join(row.embedding for row in rows), dtype="<f2").reshape(len(rows), width // 2)
        return PassageVectors(
            np.array([row.id for row in rows], dtype=np.int64),
            [row.document for row in rows],
            np.array([row.terms for row in rows], dtype=np.int32),
            vectors,
        )

    def token_vectors(self, ids: Sequence[int]) -> dict[int, bytes]:
        """What is stored of the tokens' vectors of these live passages; those that have none are left out."""
        found: dict[int, bytes] = {}
        with self._read() as connection:
            for some in batched([int(id) for id in ids], BATCH):
                query = self._live_passages(passages.c.id, passages.c.token_vectors)
                query = query.where(passages.c.id.in_(some), passages.c.token_vectors.is_not(None))
                found.update((id, data) for id, data in connection.execute(query))
        return found

    def holding(self, terms: Sequence[str], ids: Sequence[int]) -> list[int]:
        """Which of these passages hold any of the terms, ascending."""
        keys = [term_bytes(term) for term in terms]
        found: set[int] = set()
        with self._read() as connection:
            for some in batched([int(id) for id in ids], BATCH):
                query = select(postings.c.passage).where(
                    postings.c.tenant == self._tenant, postings.c.term.in_(keys), postings.c.passage.in_(some)
                )
                found.update(connection.execute(query).scalars())
        return sorted(found)

    def passages_of_all(self) -> list[PassageRow]:
        """Every live passage, in order of position and place in the document."""
        return self._passage_rows(None)

    def passage_rows(self, document_id: str) -> list[PassageRow]:
        """The passages of one live document, in order."""
        return self._passage_rows(document_id)

    def _passage_rows(self, document_id: str | None) -> list[PassageRow]:
        columns = (
            passages.c.id,
            passages.c.document,
            passages.c.ordinal,
            passages.c.start_char,
            passages.c.end_char,
            passages.c.terms,
        )
        query = self._live_passages(*columns)
        if document_id is not None:
            query = query.where(passages.c.document == as_id(document_id))
        with self._read() as connection:
            rows = connection.execute(query.order_by(documents.c.position, passages.c.ordinal)).all()
        return [PassageRow(*row) for row in rows]

    def passages_of(self, document_ids: Sequence[str]) -> list[int]:
        """Ids of the passages of these live documents, ascending."""
        found: list[int] = []
        with self._read() as connection:
            for some in batched(list({as_id(id) for id in document_ids}), BATCH):
                query = self._live_passages(passages.c.id).where(passages.c.document.in_(some))
                found += connection.execute(query).scalars()
        return sorted(found)

    def passages(self, ids: Sequence[int]) -> list[PassageText]:
        """These passages with their text, in the order given; ids that are not live are left out."""
        columns = (
            passages.c.id,
            passages.c.document,
            passages.c.ordinal,
            passages.c.start_char,
            passages.c.end_char,
            documents.c.metadata,
            documents.c.observed_at,
            documents.c.ingested_at,
        )
        wanted = [int(id) for id in ids]
        found: dict[int, PassageText] = {}
        with self._read() as connection:
            for some in batched(list(dict.fromkeys(wanted)), BATCH):
                rows = connection.execute(self._live_passages(*columns).where(passages.c.id.in_(some))).all()
                need = {(row.document, index) for row in rows for index in _chunks_of(row.start_char, row.end_char)}
                texts = self._chunk_texts(connection, sorted(need))
                for id, document, ordinal, start, end, metadata, observed_at, ingested_at in rows:
                    text = _cut(texts, document, start, end)
                    times = from_micros(observed_at), from_micros(ingested_at)
                    found[id] = PassageText(id, document, ordinal, start, end, text, from_json(metadata), *times)
        return [found[id] for id in wanted if id in found]

    def _chunk_texts(self, connection: Connection, need: list[tuple[str, int]]) -> dict[tuple[str, int], str]:
        texts: dict[tuple[str, int], str] = {}
        for some in batched(need, BATCH):
            query = select(chunks.c.document, chunks.c.index, chunks.c.data).where(
                chunks.c.tenant == self._tenant, tuple_(chunks.c.document, chunks.c.index).in_(some)
            )
            for document, index, data in connection.execute(query):
                texts[document, index] = decode_chunk(data, document)
        return texts

    def postings(self, terms: Sequence[str], *, most: int | None = None) -> dict[str, tuple[Int64, Int32]]:
        """For each term, the live passages that hold it (ids ascending) and how often each one does.

        Terms that more than `most` passages hold are left out, unread.
        """
        keys = {term: term_bytes(term) for term in terms}
        if most is not None:
            rare = self._rare(list(keys.values()), most)
            keys = {term: key for term, key in keys.items() if key in rare}
        found: dict[bytes, list[tuple[int, int]]] = {key: [] for key in keys.values()}
        on_passage = (postings.c.tenant == passages.c.tenant) & (postings.c.passage == passages.c.id)
        with self._read() as connection:
            for some in batched(list(found), BATCH):
                query = (
                    self._live_passages(postings.c.term, postings.c.passage, postings.c.tf)
                    .join(postings, on_passage)
                    .where(postings.c.tenant == self._tenant, postings.c.term.in_(some))
                )
                for term, passage, tf in connection.execute(query.order_by(postings.c.term, postings.c.passage)):
                    found[bytes(term)].append((passage, tf))
        return {
            term: (
                np.array([passage for passage, _ in found[key]], dtype=np.int64),
                np.array([tf for _, tf in found[key]], dtype=np.int32),
            )
            for term, key in keys.items()
        }

    def _rare(self, keys: Sequence[bytes], most: int) -> set[bytes]:
        """Those of the terms that at most so many passages hold; of each no more are looked at."""
        rare: set[bytes] = set()
        with self._read() as connection:
            for some in batched(keys, COUNTED):
                given = {"tenant": self._tenant, "most": most + 1, **{f"term_{n}": key for n, key in enumerate(some)}}
                counts = connection.execute(_counting(len(some)), given)
                rare.update(some[number] for number, count in counts if count <= most)
        return rare

    def replace_passages(
        self, document_id: str, new: Sequence[NewPassage], *, expected_version: int | None = None
    ) -> None:
        """Exchange a live document's passages in one transaction, for another embedder or cut. Raises as `append`."""
        with self._write(expected_version) as (connection, _):
            row = self._document(connection, document_id, detached=False)
            self._check_passages(new, row.characters)
            self._delete_passages(connection, document_id)
            self._insert_passages(connection, document_id, stored(new))
            self._change(connection)


@cache
def _counting(terms: int) -> TextClause:
    """Count the passages that hold each of so many terms, up to a limit.

    As text: such a union of selects takes SQLAlchemy longer to put together than the database to answer.
    """
    name = postings.name
    few = f"SELECT 1 FROM {name} WHERE {name}.tenant = :tenant AND {name}.term = :term_%d LIMIT :most"
    one = f"SELECT %d AS number, count(*) AS held FROM ({few}) AS few_%d"
    return text(" UNION ALL ".join(one % (number, number, number) for number in range(terms)))


def batched(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Runs of at most `size` items."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def _chunks_of(start: int, end: int) -> range:
    return range(start // CHUNK_CHARACTERS, max(start, end - 1) // CHUNK_CHARACTERS + 1) if end > start else range(0)


def _cut(texts: dict[tuple[str, int], str], document: str, start: int, end: int) -> str:
    need = _chunks_of(start, end)
    missing = next((index for index in need if (document, index) not in texts), None)
    if missing is not None:
        raise damaged(document, f"chunk {missing} is missing")
    text = "".join(texts[document, index] for index in need)
    offset = need.start * CHUNK_CHARACTERS if len(need) else 0
    text = text[start - offset : end - offset]
    if len(text) != end - start:
        raise damaged(document, "a part of its text is missing")
    return text
