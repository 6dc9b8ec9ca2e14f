"""Neighbours follow from streams, and ranking uses them without reaching past a filter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.notepad.helpers import Pad
from ttt_memory.ledger.records import LiveMetadata
from ttt_memory.notepad.heading import heading
from ttt_memory.notepad.lexical import beside
from ttt_memory.notepad.surroundings import Source, survey
from ttt_memory.notepad.terms import term

DAY = datetime(2024, 5, 8, 9, tzinfo=UTC)


def source(stream: str | None = None, sequence: int = 0, **metadata: str) -> Source:
    return Source.of(LiveMetadata("id", dict(metadata), DAY, DAY, stream, sequence))


@given(st.lists(st.tuples(st.sampled_from([None, "a", "b"]), st.integers(0, 50), st.integers(1, 3)), max_size=12))
@settings(max_examples=60, deadline=None)
def test_neighbours_are_mutual_and_keep_to_their_stream(documents: list[tuple[str | None, int, int]]) -> None:
    sources = [source(stream, sequence) for stream, sequence, _ in documents]
    owners = np.array([n for n, (_, _, count) in enumerate(documents) for _ in range(count)], np.int64)
    found = survey(owners, sources)
    for row, (before, after) in enumerate(zip(found.before, found.after, strict=True)):
        assert before < 0 or found.after[before] == row
        assert after < 0 or found.before[after] == row
        if after >= 0:
            one, other = sources[owners[row]], sources[owners[after]]
            assert owners[row] == owners[after] or (one.stream is not None and one.stream == other.stream)
            assert (one.sequence, row) <= (other.sequence, after) or owners[row] == owners[after]
    lines = {sources[n].stream or n for n in owners.tolist()}
    assert (found.before < 0).sum() == len(lines), "each line has one beginning"


def test_a_removed_document_takes_no_part() -> None:
    sources = [source("s", 0), source("s", 1), source("s", 2), None, source(None)]
    assert survey(np.array([0, 1, 2, 4]), sources).after.tolist() == [1, 2, -1, -1]


def test_writers_and_dates_are_terms() -> None:
    found = survey(np.array([0, 1]), [source(speaker="Ada Lovelace"), source(role="assistant")])
    assert found.writers[term("lovelace")] == [0]
    assert found.dates["2024"] == [0, 1]
    assert found.by_model.tolist() == [False, True]


def test_the_postings_of_neighbours() -> None:
    postings = {"key": (np.array([1, 2]), np.array([2, 1], np.int32))}
    rows, counts = beside(postings, np.array([-1, 0, 1, -1]), np.array([1, 2, -1, -1]))["key"]
    assert dict(zip(rows.tolist(), counts.tolist(), strict=True)) == {0: 2, 1: 1, 2: 2}


def test_headings() -> None:
    assert heading({"speaker": "Ada"}, DAY) == "[8 May 2024] Ada: "
    assert heading({"role": "user"}, DAY, DAY) == "user: ", "the time of ingestion is not when it was said"
    assert heading({"speaker": 7, "author": " "}, None) == ""


def test_an_answer_is_found_by_the_question_before_it(pad: Pad) -> None:
    for n in range(20):
        pad.put(f"Small talk number {n} about the weather.", stream="chat", sequence=n)
    pad.put("Where did you buy the copper kettle?", stream="chat", sequence=20, metadata={"speaker": "Ada"})
    answer = pad.put("At Tanaka and Sons.", stream="chat", sequence=21, metadata={"speaker": "Grace"})
    elsewhere = pad.put("At Miller and Daughters.", stream="other", sequence=0)
    found = [hit.document_id for hit in pad.search("where was the copper kettle bought", limit=50)]
    assert found.index(answer) < found.index(elsewhere), "beside the question, and not alone"


def test_who_said_it_is_heard(pad: Pad) -> None:
    for name in ("Grace", "Ada", "Edsger"):
        pad.put("I went to the harbour.", stream=f"by {name}", metadata={"speaker": name}, sequence=0)
    assert pad.search("What did Ada do at the harbour?")[0].metadata == {"speaker": "Ada"}


def test_neighbours_outside_a_filter_say_nothing(pad: Pad) -> None:
    pad.put("The copper kettle is mentioned here.", stream="chat", sequence=0, observed_at=DAY)
    pad.put("Nothing of it.", stream="chat", sequence=1, observed_at=DAY)
    pad.put("Nothing of it either.", stream="chat", sequence=2, observed_at=DAY)
    before = pad.search("copper kettle", as_of=DAY, limit=9)
    pad.put("Copper kettle, copper kettle!", stream="chat", sequence=3, observed_at=DAY + timedelta(days=1))
    after = pad.search("copper kettle", as_of=DAY, limit=9)
    assert [hit.document_id for hit in before] == [hit.document_id for hit in after]
