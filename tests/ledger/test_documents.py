"""Documents: verbatim, in order, once; streams; learning results; pins."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.ledger.helpers import add, cut, texts
from ttt_memory.errors import (
    ConflictError,
    DocumentNotFoundError,
    InvalidDocumentError,
    InvalidInputError,
    TenantNotFoundError,
)
from ttt_memory.ledger import Ledger, NewDocument, NewPassage, TenantLedger
from ttt_memory.ledger.schema import CHUNK_CHARACTERS

ODD = [
    "",
    "\0",
    "a\0b",
    "\ufeff",
    "é" * 3,
    "日本語",
    "😀" * 5,
    "<|endoftext|>",
    "'; DROP TABLE ttt_documents; --",
    "\r\n\t\x1b",
]


def test_a_new_tenant_is_empty(tenant: TenantLedger) -> None:
    head = tenant.head()
    assert (head.version, head.epoch, head.position, head.relearning, head.model, head.embedder) == (
        0,
        0,
        0,
        False,
        None,
        None,
    )
    assert tenant.documents() == []
    assert tenant.verify() == []


def test_text_comes_back_verbatim(ledger: Ledger, tenant: TenantLedger, url: str) -> None:
    rows = [add(tenant, text) for text in ODD]
    assert [row.position for row in rows] == list(range(1, len(ODD) + 1))
    with Ledger.open(url) as again:
        reopened = again.tenant("acme", create=False)
        assert texts(reopened) == ODD
        assert [row.size for row in reopened.documents()] == [len(text.encode()) for text in ODD]
        assert reopened.documents() == rows
        assert reopened.verify() == []


@pytest.mark.parametrize(
    "characters", [CHUNK_CHARACTERS - 1, CHUNK_CHARACTERS, CHUNK_CHARACTERS + 1, 2 * CHUNK_CHARACTERS]
)
def test_chunk_borders(tenant: TenantLedger, characters: int) -> None:
    text = "".join(chr(0x4E00 + i % 5000) for i in range(characters))
    row = add(tenant, text, passages=[])
    assert tenant.text(row.id) == text
    for start, end in [(0, 0), (0, 1), (CHUNK_CHARACTERS - 2, min(characters, CHUNK_CHARACTERS + 2)), (5, characters)]:
        assert tenant.text_range(row.id, start, end) == text[start:end]
    for start, end in [(-1, 2), (3, 2), (0, characters + 1)]:
        with pytest.raises(InvalidInputError):
            tenant.text_range(row.id, start, end)
    assert tenant.verify() == []


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text(max_size=300),
    metadata=st.dictionaries(
        st.text(),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
            lambda item: st.lists(item, max_size=3),
            max_leaves=5,
        ),
        max_size=3,
    ),
)
def test_any_text_and_metadata(tenant: TenantLedger, text: str, metadata: dict[str, Any]) -> None:
    row = add(tenant, text, metadata=metadata)
    if row.created:
        assert row.metadata == metadata
    assert tenant.text(row.id) == text


@pytest.mark.parametrize("bad", [{"a": float("nan")}, {"a": object()}, {1: "a"}, {"a": b"x"}])
def test_metadata_that_is_no_json_is_refused(tenant: TenantLedger, bad: dict[Any, Any]) -> None:
    with pytest.raises(InvalidDocumentError):
        add(tenant, "text", metadata=bad)
    assert tenant.documents() == []


def test_lone_surrogates_are_refused(tenant: TenantLedger) -> None:
    with pytest.raises(InvalidDocumentError, match="surrogate"):
        add(tenant, "a\ud800b")
    assert tenant.counts().documents == 0


def test_the_same_content_is_one_document(tenant: TenantLedger) -> None:
    first = add(tenant, "same")
    again = add(tenant, "same")
    assert first.created
    assert not again.created
    assert again.id == first.id
    assert tenant.head().version == 1
    assert tenant.find_document(tenant.content_key("same")) == first
    assert tenant.find_document(tenant.content_key("other")) is None


def test_streams_keep_the_second_ok(tenant: TenantLedger) -> None:
    assert tenant.next_sequence("chat") == 0
    for sequence, text in enumerate(["ok", "ok", "bye"]):
        assert add(tenant, text, stream="chat", sequence=sequence).created
    add(tenant, "ok", stream="other\0" * 2000, sequence=0)
    add(tenant, "ok")
    assert tenant.next_sequence("chat") == 3
    assert not add(tenant, "ok", stream="chat", sequence=1).created
    with pytest.raises(ConflictError) as error:
        add(tenant, "no", stream="chat", sequence=1)
    assert error.value.context["sequence"] == 1
    found = tenant.find_append("chat", 2)
    assert found is not None
    assert [row.sequence for row in tenant.stream_documents("chat", before_position=found.position)] == [1, 0]
    assert [row.sequence for row in tenant.stream_documents("chat", limit=1)] == [2]
    assert tenant.find_append("chat", 9) is None
    assert tenant.documents()[3].stream == "other\0" * 2000
    assert tenant.verify() == []


def test_appends_cannot_be_confused(tenant: TenantLedger) -> None:
    """Stream, sequence and text are encoded apart: moving a character from one to the other changes the key."""
    keys = [
        tenant.content_key("23", "a", 1),
        tenant.content_key("3", "a", 12),
        tenant.content_key("3", "a1", 2),
        tenant.content_key("a\x00123"),
        tenant.content_key("3", "a", 1),
    ]
    assert len(set(keys)) == len(keys)
    with pytest.raises(InvalidInputError):
        tenant.content_key("x", "a")


def test_compare_and_swap(tenant: TenantLedger) -> None:
    add(tenant, "one", expected_version=0)
    with pytest.raises(ConflictError) as error:
        add(tenant, "two", expected_version=0)
    assert error.value.context == {"version": 1, "expected_version": 0}
    add(tenant, "two", expected_version=1)
    assert texts(tenant) == ["one", "two"]


@pytest.mark.parametrize(
    "passage",
    [
        NewPassage(0, 5, {}, b"ab"),
        NewPassage(-1, 2, {}, b"ab"),
        NewPassage(2, 1, {}, b"ab"),
        NewPassage(0, 1, {"a": 0}, b"ab"),
    ],
)
def test_passages_outside_the_text_are_refused(tenant: TenantLedger, passage: NewPassage) -> None:
    with pytest.raises(InvalidInputError):
        add(tenant, "text", passages=[passage])


def test_a_foreign_content_key_is_refused(ledger: Ledger, tenant: TenantLedger) -> None:
    other = ledger.tenant("other")
    assert other.content_key("text") != tenant.content_key("text")
    with pytest.raises(InvalidInputError):
        tenant.append(NewDocument("text", other.content_key("text"), 1), cut("text"))


@pytest.mark.parametrize("sequence", [-1, 2**63])
def test_sequence_numbers_out_of_range(tenant: TenantLedger, sequence: int) -> None:
    with pytest.raises(InvalidDocumentError):
        add(tenant, "text", stream="s", sequence=sequence)


def test_times_are_exact_to_the_microsecond(tenant: TenantLedger) -> None:
    moments = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
        datetime(2024, 2, 29, 12, tzinfo=timezone(timedelta(hours=5, minutes=45))),
    ]
    for number, moment in enumerate(moments):
        add(tenant, str(number), observed_at=moment)
    assert [row.observed_at for row in tenant.documents()] == moments
    assert [row.observed_at for row in tenant.live_metadata()] == moments


def test_paging(tenant: TenantLedger) -> None:
    for number in range(10):
        add(tenant, f"text {number}", learn=number % 2 == 0)
    assert [row.position for row in tenant.documents(after_position=3, limit=2)] == [4, 5]
    assert [row.position for row in tenant.documents(after_position=3, learn_only=True)] == [5, 7, 9]


def test_learning_results(tenant: TenantLedger) -> None:
    row = add(tenant, "text " * 20)
    head = tenant.head()
    tenant.record_learning(row.id, losses=[3.5, 0.1], skipped=1, expected_epoch=head.epoch)
    read = tenant.document(row.id)
    assert (read.learned, read.skipped, read.losses[0]) == (True, 1, 3.5)
    assert read.losses[1] == pytest.approx(0.1, rel=1e-6)
    assert tenant.head() == head
    assert tenant.counts().learned_tokens == row.tokens
    with pytest.raises(ConflictError):
        tenant.record_learning(row.id, losses=[], expected_epoch=head.epoch + 1)
    with pytest.raises(DocumentNotFoundError):
        tenant.record_learning("0" * 32, losses=[])


def test_unknown_documents(tenant: TenantLedger) -> None:
    for id in ["0" * 32, "", "x\0y", "é" * 100]:
        with pytest.raises(DocumentNotFoundError):
            tenant.document(id)
        with pytest.raises(DocumentNotFoundError):
            tenant.text(id)


def test_pins(tenant: TenantLedger) -> None:
    tenant.pin_model({"fingerprint": "m", "name": "tiny\0"})
    tenant.pin_model({"name": "tiny\0", "fingerprint": "m"})
    assert tenant.head().model == {"fingerprint": "m", "name": "tiny\0"}
    with pytest.raises(ConflictError):
        tenant.pin_model({"fingerprint": "n"})
    tenant.pin_embedder("minilm")
    with pytest.raises(ConflictError):
        tenant.pin_embedder("other")
    tenant.pin_embedder("other", replace=True)
    assert tenant.head().embedder == "other"


def test_tenants_by_hostile_names(ledger: Ledger) -> None:
    names = [
        "a",
        "A",
        "a ",
        "..",
        "../../etc/passwd",
        "'",
        '"; --',
        "%",
        "日本",
        "é",
        "e\u0301",
        "x" * 10_000,
        "a:b",
        "a/b",
    ]
    for name in names:
        add(ledger.tenant(name), f"text of {name}")
    assert ledger.tenants() == sorted(names)
    for name in names:
        assert texts(ledger.tenant(name, create=False)) == [f"text of {name}"]
    for bad in ["", "a\0b", "\0", "\ud800"]:
        with pytest.raises(InvalidInputError):
            ledger.tenant(bad)
    with pytest.raises(TenantNotFoundError):
        ledger.tenant("nobody", create=False)
