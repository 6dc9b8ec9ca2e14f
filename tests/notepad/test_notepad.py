"""The notepad over a real ledger: exact quotes, filters, following the ledger, isolation, hostile input, threads."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from tests.notepad.helpers import Pad, finish
from tests.notepad.needles import haystack, needles
from ttt_memory.errors import InvalidFilterError, InvalidInputError
from ttt_memory.ledger import Ledger
from ttt_memory.ledger.schema import passages as passage_table
from ttt_memory.notepad.embedders import load_embedder
from ttt_memory.notepad.notepad import ExactMemory, Notepad
from ttt_memory.notepad.ranking import CANDIDATES
from ttt_memory.types import Passage

HOSTILE = [
    '"',
    "NEAR(a b)",
    "a AND OR",
    "*",
    "--",
    "'; DROP TABLE x",
    "\0",
    "😀",
    "%_",
    "a" * 5_000,
    "\u202e",
    "?",
    "the",
]


def test_a_hit_quotes_its_source_and_carries_its_metadata(pad: Pad) -> None:
    pad.put(
        "Nothing of interest.\n\n" + "Filler words stand here. " * 300 + "The kettle is blue. " + "More filler. " * 300
    )
    document = pad.put("The garden has seven gates.", metadata={"kind": "note"})
    hits = pad.search("how many gates has the garden?", limit=3)
    pad.assert_exact(hits)
    assert (hits[0].document_id, hits[0].text, hits[0].metadata) == (
        document,
        "The garden has seven gates.",
        {"kind": "note"},
    )
    inside = pad.search("kettle blue")[0]
    assert inside.start > 0
    assert "kettle is blue" in inside.text


@pytest.mark.parametrize("query", ["", " \n\t"])
def test_an_empty_query_is_refused(pad: Pad, query: str) -> None:
    with pytest.raises(InvalidInputError):
        pad.search(query)


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_below_one_is_refused(pad: Pad, limit: int) -> None:
    with pytest.raises(InvalidInputError):
        pad.search("x", limit=limit)


def test_an_empty_notepad_finds_nothing(pad: Pad) -> None:
    assert pad.search("anything") == []
    assert pad.search("anything", where={"a": 1}) == []


@pytest.mark.parametrize("text", ["", " \n ", "\0", "!!!", "😀😀", "\u200b"])
def test_texts_without_words_are_kept_and_harm_nothing(pad: Pad, text: str) -> None:
    pad.put(text)
    pad.put("A sentence with words.")
    hits = pad.search("words")
    pad.assert_exact(hits)
    assert hits[0].text == "A sentence with words."
    assert pad.verify() == []


@pytest.mark.parametrize("query", HOSTILE)
def test_hostile_queries_find_what_holds_them_or_nothing(pad: Pad, query: str) -> None:
    pad.put("An innocent text about rivers and stones.")
    pad.put(f"before {query} after")
    pad.assert_exact(pad.search(query))


def test_limit_and_ties_are_deterministic(pad: Pad) -> None:
    ids = [pad.put("The same words again.", stream=f"s{n}", sequence=0) for n in range(12)]
    assert [hit.document_id for hit in pad.search("same words", limit=12)] == ids
    assert len(pad.search("same words", limit=3)) == 3


def test_codes_outrank_likeness(pad: Pad) -> None:
    for n in range(40):
        pad.put(f"What is the status of ticket number {n}? The ticket status is open, says the desk. See AB-{n:04d}.")
    wanted = pad.put("Unrelated prose that happens to say ab-9931 once.")
    hits = pad.search("What is the status of ticket AB-9931?")
    assert hits[0].document_id == wanted
    assert hits[0].score > 1 >= hits[-1].score


def test_what_says_the_query_to_the_word_is_found_among_hundreds_that_are_liker(pad: Pad) -> None:
    for n in range(300):
        pad.put(f"The ticket number for Gus{n} Kemp: the ticket, its number, and Kemp.")
    pad.put("Emil Kemp. " * 3)
    filler = " ".join(f"Then word{n} was talked about at length." for n in range(20))
    pad.put(f"{filler} The ticket number for Emil Kemp is lost. {filler}")
    assert "for Emil Kemp is lost" in pad.search("What is the ticket number for Emil Kemp?", limit=1)[0].text


def test_filters_and_as_of(pad: Pad) -> None:
    for n in range(30):
        pad.put(
            f"A report about the harbour, number {n}.",
            metadata={"n": n, "even": n % 2 == 0},
            observed_at=datetime(2024, 1, 1 + n, tzinfo=UTC),
        )

    def found(**options: Any) -> set[int]:
        return {hit.metadata["n"] for hit in pad.search("harbour report", limit=50, **options)}

    assert found() == set(range(30))
    assert found(where={"n": {"$gte": 25}}) == set(range(25, 30))
    assert found(where={"even": True, "n": {"$lt": 5}}) == {0, 2, 4}
    assert found(where={"n": 99}) == set()
    assert found(as_of=datetime(2024, 1, 3, tzinfo=UTC)) == {0, 1, 2}
    assert found(as_of=datetime(2024, 1, 3)) == {0, 1, 2}, "naive times are UTC"
    assert found(where={"even": True}, as_of=datetime(2024, 1, 3, tzinfo=UTC)) == {0, 2}
    with pytest.raises(InvalidFilterError):
        pad.search("harbour", where={"$bad": 1})


def test_a_filter_reaches_below_the_best_matches(pad: Pad) -> None:
    pad.put("\n\n".join(f"harbour {'harbour ' * 100}{n}" for n in range(2 * CANDIDATES)), metadata={"good": False})
    assert len(pad) == 2 * CANDIDATES
    pad.put("The only allowed text, on another subject.", metadata={"good": True})
    assert [hit.metadata["good"] for hit in pad.search("harbour", where={"good": True})] == [True]


def test_it_follows_appends_forgets_and_restores(pad: Pad, ledger: Ledger) -> None:
    first = pad.put("The first text is about copper.")
    point = pad.ledger.head().point
    second = pad.put("The second text is about silver.")
    other = Notepad(ledger.tenant("a"), load_embedder("hash"))
    assert len(other) == 2
    pad.ledger.forget([first], expected_version=pad.ledger.head().version)
    for notepad in (pad, other):
        notepad.refresh()
        assert [hit.document_id for hit in notepad.search("copper")] == [second]
    third = pad.put("A third one, on tin.")
    pad.ledger.restore(point, expected_version=pad.ledger.head().version)
    pad.refresh()
    assert len(pad) == 0
    fourth = pad.put("A fourth one, on lead.")
    other.refresh()
    assert {hit.document_id for hit in other.search("one tin lead")} == {fourth}
    assert third not in {hit.document_id for hit in other.search("tin")}
    assert pad.verify() == other.verify() == []


def test_unlearned_documents_leave_without_a_new_epoch(pad: Pad) -> None:
    first = pad.put("Kept aside: the copper key.", learn=False)
    second = pad.put("Also kept: the silver key.", learn=False)
    pad.ledger.forget([first], expected_version=pad.ledger.head().version)
    third = pad.write("And a golden key.", learn=False).id
    pad.refresh()
    assert {hit.document_id for hit in pad.search("key")} == {second, third}


def test_new_passages_of_an_old_document_are_taken_in(pad: Pad) -> None:
    document = pad.put("Copper and silver.")
    pad.ledger.replace_passages(document, finish(pad.prepare("Copper and silver.")))
    pad.refresh()
    assert pad.verify() == []
    assert pad.search("copper")[0].document_id == document


def test_add_and_remove_stand_alone(pad: Pad) -> None:
    exact: ExactMemory = pad
    document = pad.write("A text about amber.").id
    assert exact.search("amber") == []
    exact.add(document)
    exact.add(document)
    assert [hit.document_id for hit in exact.search("amber")] == [document]
    exact.remove([document, "unknown"])
    assert exact.search("amber") == []


def test_one_tenants_scores_do_not_know_of_another(ledger: Ledger) -> None:
    embedder = load_embedder("hash")
    ours, theirs = Pad(ledger.tenant("b"), embedder), Pad(ledger.tenant("a"), embedder)
    for n in range(20):
        ours.put(f"Our harbour note {n} mentions copper and code K-{n:04d}.")
    queries = ["harbour copper", "K-0007", "what is mentioned?", "note 3"]

    def everything() -> list[list[Passage]]:
        return [ours.search(query, limit=20) for query in queries]

    before = everything()
    for n in range(50):
        theirs.put(f"Their copper copper harbour K-0007 text {n}.")
    ours.refresh()
    assert everything() == before
    assert everything() == [Pad(ledger.tenant("b"), embedder).search(query, limit=20) for query in queries]
    assert all(hit.text.startswith("Their") for hit in theirs.search("K-0007", limit=50))


def test_searching_while_another_thread_writes(pad: Pad) -> None:
    pad.put("The anchor text about the lighthouse.")
    stop = threading.Event()

    def search() -> int:
        count = 0
        while not stop.is_set():
            hits = pad.search("lighthouse anchor", limit=5)
            assert hits[0].text == "The anchor text about the lighthouse."
            count += 1
        return count

    with ThreadPoolExecutor(3) as pool:
        readers = [pool.submit(search) for _ in range(3)]
        try:
            for n in range(40):
                document = pad.put(f"Another text, number {n}, about ships.")
                if n % 4 == 0:
                    pad.ledger.forget([document], expected_version=pad.ledger.head().version)
                    pad.refresh()
        finally:
            stop.set()
        assert all(reader.result() for reader in readers)
    assert len(pad) == 31
    assert pad.verify() == []


def test_verify_names_what_is_wrong(pad: Pad) -> None:
    pad.put("Copper and silver.")
    pad.put("Tin and lead.")
    assert pad.verify() == []
    wrong = np.ones(256, np.float16).tobytes()
    with pad.ledger._write() as (connection, _):
        rows = passage_table.c
        connection.execute(update(passage_table).where(rows.id == rows.id).values(terms=99, embedding=wrong))
    assert {finding.check for finding in pad.verify()} == {"notepad.index", "notepad.terms", "notepad.vectors"}


def test_preparing_reports_progress_and_is_deterministic(pad: Pad) -> None:
    text = "".join(haystack(needles(10), 6_000))
    steps = list(pad.prepare(text))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert steps[-1] == (len(finish(pad.prepare(text))),) * 2
    assert len(steps) > 3
    assert finish(pad.prepare(text)) == finish(pad.prepare(text))


@pytest.mark.parametrize("half", [500_000, pytest.param(5_000_000, marks=pytest.mark.slow)])
def test_a_line_of_megabytes_is_searchable(pad: Pad, half: int) -> None:
    pad.put("x" * half + " the needle is K9-3141 here " + "y" * half)
    hits = pad.search("K9-3141")
    pad.assert_exact(hits)
    assert "K9-3141" in hits[0].text


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.text(max_size=80), min_size=1, max_size=4, unique=True), st.text(min_size=1, max_size=30))
def test_any_text_and_any_query(ledger: Ledger, texts: list[str], query: str) -> None:
    pad = Pad(ledger.tenant(f"t{len(ledger.tenants())}"), load_embedder("hash"))
    for text in texts:
        pad.put(text)
    if query.strip():
        pad.assert_exact(pad.search(query, limit=10))
    assert pad.verify() == []


def test_reading_only_what_may_be_among_the_best_changes_nothing(pad: Pad, monkeypatch: pytest.MonkeyPatch) -> None:
    for text in haystack(needles(60), 8_000):
        pad.put(text)
    queries = [question for needle in needles(60)[::5] for question in needle.questions]
    few = [pad.search(query, limit=3) for query in queries]
    monkeypatch.setattr("ttt_memory.notepad.reading.PAGE", 1_000)
    assert [pad.search(query, limit=3) for query in queries] == few
