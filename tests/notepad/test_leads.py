"""The second step: what the best passages lead to is found, and does not pass what was found already."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.notepad.helpers import Pad
from ttt_memory.notepad import leads
from ttt_memory.notepad.surroundings import of_their_lines


@given(st.lists(st.floats(0, 3), min_size=1, max_size=5))
def test_better_leads_count_more_and_all_count_one(scores: list[float]) -> None:
    weights = leads.weigh(sorted(scores, reverse=True))
    assert weights.sum() == pytest.approx(1)
    assert (np.diff(weights) <= 0).all()


def test_names_and_numbers_lead_and_known_ones_do_not() -> None:
    text = "The Glass Harbour (1931) is a novel by Ada Quist. It was read widely, it says."
    assert leads.names(text, {"glas", "harbour", leads.expand("Glass")[0]}) == ["1931", "ada", "quist"]
    assert len(leads.names(" ".join(f"Name{n}" for n in range(50)), set())) == leads.NAMES


def test_a_name_leads_by_its_rarity_and_nowhere_if_the_lead_alone_has_it() -> None:
    postings = {
        "quist": (np.array([0, 3]), np.array([1, 1], np.int32)),
        "common": (np.array([0, 1, 2, 3, 4]), np.array([1, 1, 1, 1, 1], np.int32)),
        "alone": (np.array([0]), np.array([1], np.int32)),
    }
    found = leads.naming([["quist", "common", "alone", "gone"]], np.array([1.0]), postings, 20)
    assert found[3] == pytest.approx(1)
    assert 0 < found[1] < 0.5
    assert found[5] == 0


@given(st.integers(0, 999), st.integers(1, 6), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_the_gain_is_what_the_lead_leaves_open(seed: int, words: int, count: int) -> None:
    draw = np.random.default_rng(seed)
    nearest = draw.random((words, count)).astype(np.float32)
    nearest[:, 1:][:, draw.random(count - 1) < 0.3] = np.nan
    gain = leads.gain(nearest, 0, [1.0] * words)
    assert gain[0] == 0
    assert (gain >= 0).all()
    for place, more in enumerate(gain.tolist()):
        expected = np.maximum(nearest[:, place] - nearest[:, 0], 0).mean()
        assert more == pytest.approx(0 if np.isnan(expected) else expected, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), max_size=20))
@settings(max_examples=60, deadline=None)
def test_a_line_is_as_good_as_its_three_best(passages: list[tuple[int, float]]) -> None:
    lines = np.array([line for line, _ in passages], np.int64)
    scores = np.array([score for _, score in passages])
    lengths = np.bincount(lines)[lines] if len(lines) else lines
    found = of_their_lines(scores, lines, lengths)
    for line, value in zip(lines.tolist(), found.tolist(), strict=True):
        assert value == pytest.approx(np.sort(scores[lines == line])[-3:].mean())


def test_what_is_no_candidate_counts_as_nothing() -> None:
    found = of_their_lines(np.array([0.9, 0.6]), np.array([5, 6]), np.array([30, 1]))
    assert found.tolist() == pytest.approx([0.3, 0.6])


def test_an_answer_is_found_through_the_name_in_another_passage(pad: Pad) -> None:
    pad.put("The Glass Harbour is a novel of 1931 by Ada Quist, set among lighthouse keepers.")
    answer = pad.put("Ada Quist kept bees at Tallow Bay until she died.")
    for n in range(30):
        pad.put(f"Bela Rovic number {n} kept goats at Marrow Point, far from any shore.")
    question = "In which bay did the author of the novel The Glass Harbour live?"
    assert answer in [hit.document_id for hit in pad.search(question, limit=5)]


def test_a_short_question_follows_no_leads(pad: Pad, monkeypatch: pytest.MonkeyPatch) -> None:
    pad.put("The Glass Harbour is a novel by Ada Quist.")
    pad.put("Ada Quist kept bees.")
    monkeypatch.setattr(leads, "names", lambda text, known: pytest.fail("leads were read"))
    assert "novel" in pad.search("Who wrote The Glass Harbour?")[0].text


def test_a_filter_holds_for_what_leads_lead_to(pad: Pad) -> None:
    pad.put("The Glass Harbour is a novel by Ada Quist.", metadata={"shelf": 1})
    hidden = pad.put("Ada Quist kept bees at Tallow Bay.", metadata={"shelf": 2})
    question = "In which bay did the author of the novel The Glass Harbour live?"
    hits = pad.search(question, where={"shelf": 1}, limit=10)
    assert hits
    assert hidden not in [hit.document_id for hit in hits]


def test_common_terms_are_left_out_unread(pad: Pad) -> None:
    for n in range(6):
        pad.put(f"Harbour {n} and Quist." if n < 2 else f"Harbour {n}.")
    found = pad.ledger.postings(["harbour", "quist", "nothing"], most=3)
    assert {term: len(ids) for term, (ids, _) in found.items()} == {"quist": 2, "nothing": 0}
