"""What the notepad reads: live passages, verbatim text, postings of this tenant alone."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from tests.ledger.helpers import WIDTH, add, cut
from ttt_memory.errors import ConflictError, CorruptionError, DocumentNotFoundError
from ttt_memory.ledger import Ledger, NewPassage, TenantLedger
from ttt_memory.ledger.schema import CHUNK_CHARACTERS, passages


def test_vectors_postings_and_texts_agree(ledger: Ledger, tenant: TenantLedger) -> None:
    add(ledger.tenant("other"), "red green red elsewhere")
    documents = {}
    for text in ["red green red", "green and " * 30, "blue"]:
        documents[add(tenant, text, metadata={"length": len(text)}).id] = text
    ids, owners, terms, vectors = tenant.passage_vectors()
    assert [str(array.dtype) for array in (ids, terms, vectors)] == ["int64", "int32", "float16"]
    assert vectors.shape == (len(ids), WIDTH)
    assert len(set(ids.tolist())) == len(ids) == len(owners)
    read = tenant.passages(ids.tolist())
    assert [passage.id for passage in read] == ids.tolist()
    for passage, owner in zip(read, owners, strict=True):
        assert passage.document_id == owner
        assert passage.text == documents[owner][passage.start : passage.end]
        assert passage.metadata == {"length": len(documents[owner])}
    found = tenant.postings(["red", "green", "absent"])
    assert set(found) == {"red", "green", "absent"}
    assert found["red"][1].tolist() == [2]
    assert found["green"][1].sum() == 31
    assert found["absent"][0].tolist() == []
    assert terms.sum() == 3 + 60 + 1
    assert tenant.holding(["red", "blue", "elsewhere"], ids.tolist()) == [ids[0], ids[-1]]
    assert tenant.holding(["red", "blue"], ids[1:].tolist()) == [ids[-1]]
    assert tenant.holding(["red"], []) == tenant.holding([], ids.tolist()) == []
    assert tenant.passages_of(list(documents)) == sorted(ids.tolist())
    rows = tenant.passages_of_all()
    assert [row.document_id for row in rows] == sorted(owners, key=list(documents).index)
    assert tenant.passage_rows(owners[0]) == [row for row in rows if row.document_id == owners[0]]


@pytest.mark.parametrize("terms", [3, 150])
def test_terms_that_too_many_passages_hold_are_left_out(tenant: TenantLedger, terms: int) -> None:
    names = [f"w{n}" for n in range(terms)]
    for n in range(terms):  # "w0" is in one passage, "w1" in two
        add(tenant, f"text {n}", passages=[NewPassage(0, 4, dict.fromkeys(names[n:], 1), b"xy")])
    found = tenant.postings([*names, "absent"], most=2)
    assert {term: len(ids) for term, (ids, _) in found.items()} == {"w0": 1, "w1": 2, "absent": 0}
    assert tenant.postings(names, most=terms).keys() == set(names)


def test_an_empty_tenant_has_no_vectors(tenant: TenantLedger) -> None:
    ids, owners, terms, vectors = tenant.passage_vectors()
    assert (ids.shape, owners, terms.shape, vectors.shape) == ((0,), [], (0,), (0, 0))
    assert tenant.postings([]) == {}
    assert tenant.passages([1, 2]) == []


def test_detached_passages_are_invisible(tenant: TenantLedger) -> None:
    add(tenant, "kept word")
    point = tenant.head().point
    gone = add(tenant, "gone word")
    before = tenant.passages_of([gone.id])
    tenant.restore(point)
    assert tenant.passages(before) == []
    assert tenant.passages_of([gone.id]) == []
    assert tenant.passage_rows(gone.id) == []
    assert len(tenant.passage_vectors().ids) == len(tenant.postings(["word"])["word"][0]) == 1
    tenant.restore(gone.point)
    assert tenant.passages_of([gone.id]) == before


def test_passages_over_a_chunk_border(tenant: TenantLedger) -> None:
    text = "ab" * CHUNK_CHARACTERS
    borders = [(CHUNK_CHARACTERS - 3, CHUNK_CHARACTERS + 3), (CHUNK_CHARACTERS, CHUNK_CHARACTERS), (0, len(text))]
    add(tenant, text, passages=[NewPassage(start, end, {}, b"xy") for start, end in borders])
    assert [item.text for item in tenant.passages([1, 2, 3])] == [text[start:end] for start, end in borders]
    assert [item.id for item in tenant.passages([3, 99, 1, 3])] == [3, 1, 3]


def test_terms_of_any_kind(tenant: TenantLedger) -> None:
    long = "x" * 100_000
    terms = {"a\0b": 1, "é": 2, long: 3, long + "y": 4, "'": 5, "\ud800": 6, "A": 7, "a": 8}
    add(tenant, "text", passages=[NewPassage(0, 4, terms, b"xy")])
    found = tenant.postings([*terms, "B"])
    for term, count in terms.items():
        # Terms that agree in their first 128 bytes share their postings.
        assert found[term][1].tolist() == [7 if term.startswith(long) else count]
    assert found["B"][0].size == 0
    assert tenant.verify() == []


def test_replacing_passages(tenant: TenantLedger) -> None:
    row = add(tenant, "one two three")
    old = tenant.passages_of([row.id])
    version = tenant.head().version
    tenant.replace_passages(row.id, cut("one two three", 4), expected_version=version)
    assert not set(old) & set(tenant.passages_of([row.id]))
    assert "".join(item.text for item in tenant.passages(tenant.passages_of([row.id]))) == "one two three"
    assert tenant.head().version == version + 1
    with pytest.raises(ConflictError):
        tenant.replace_passages(row.id, [], expected_version=version)
    with pytest.raises(DocumentNotFoundError):
        tenant.replace_passages("0" * 32, [])
    assert tenant.verify() == []


def test_vectors_of_different_sizes_are_corruption(tenant: TenantLedger) -> None:
    add(tenant, "one")
    add(tenant, "two")
    with tenant._store.write() as connection:
        connection.execute(update(passages).where(passages.c.id == 2).values(embedding=b"xx"))
    with pytest.raises(CorruptionError, match="passage 2"):
        tenant.passage_vectors()


def test_large_documents_go_in_several_transactions(tenant: TenantLedger) -> None:
    """More than 4 MiB of text and postings: still one document, in order, and whole."""
    text = "".join(f"word{i} " for i in range(500_000))
    assert len(text) > 5_000_000
    row = add(tenant, text, passages=cut(text[:400_000], 200))
    assert tenant.text(row.id) == text
    assert [item.ordinal for item in tenant.passage_rows(row.id)] == list(range(2000))
    assert row.position == tenant.head().position == 1
    assert tenant.verify() == []
    assert not add(tenant, text, passages=cut(text[:400_000], 200)).created
    assert tenant.counts().passages == 2000
