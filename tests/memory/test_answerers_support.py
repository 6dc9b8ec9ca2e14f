"""The check of claims against passages."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_memory import Passage
from ttt_memory.answerers.support import check, measure, refuses
from ttt_memory.notepad.embedders import load_embedder

HASH = load_embedder("hash")
SOURCES = (
    "The harbour of Ostrava was opened in 1931. Ada Moreau designed its three cranes.",
    "Lanterns are sold at the market from eight to noon. A lantern costs 12.50 crowns.",
)


def passages(*texts: str) -> list[Passage]:
    return [Passage(document_id=str(n), start=0, end=len(t), text=t, score=1.0) for n, t in enumerate(texts)]


def claim(text, question="What is known of the harbour?"):
    (found,) = check(question, text, passages(*SOURCES), HASH)
    return found


@pytest.mark.parametrize("source", SOURCES)
def test_what_stands_there_is_supported(source):
    found = check("What is known?", source, passages(*SOURCES), HASH)
    assert [claim.supported for claim in found] == [True, True]
    assert {claim.citation for claim in found} == {SOURCES.index(source)}


def test_other_names_and_numbers_are_not():
    assert claim("The harbour of Ostrava was opened in 1932.").missing == ("1932",)
    assert claim("Its three cranes were designed by Ada Holm.").missing == ("Holm",)
    assert claim("A lantern costs 13.50 crowns.").missing == ("13.50",)
    assert not claim("The harbour of Ostrava was opened in 1932.").supported


def test_numbers_may_be_words_and_names_may_come_from_the_question():
    assert claim("Ada Moreau designed its 3 cranes.").supported
    assert claim("According to Pelle, the harbour was opened in 1931.", "Pelle, when was it opened?").missing == ()


def test_other_subjects_are_not_supported():
    found = claim("Bananas ripen quickly in warm kitchens during long summers.")
    assert not found.supported
    assert found.citation is None
    assert found.score < claim("Its three cranes were designed by Ada Moreau.").score


def test_short_answers_are_read_together_with_the_question():
    (right,) = check("When was the harbour of Ostrava opened?", "In 1931.", passages(*SOURCES), HASH)
    (foreign,) = check("When did the emperor of Japan abdicate?", "In 1931.", passages(*SOURCES), HASH)
    assert right.supported
    assert foreign.score < right.score


def test_marks_of_notes_are_no_part_of_a_claim():
    marked = check("?", "The harbour of Ostrava was opened in 1931 [1]. [2] [1, 2]", passages(*SOURCES), HASH)
    assert [(found.supported, found.missing) for found in marked] == [(True, ())]


def test_nothing_supports_anything_without_passages():
    assert [c.supported for c in check("Who?", "It was Ada. She left.", [], HASH)] == [False, False]
    assert check("Who?", " ... \n?!", passages(*SOURCES), HASH) == []


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("The notes do not say.", True),
        ("The passage doesn't mention a date.", True),
        ("I don't know.", True),
        ("There is no information about that in the notes.", True),
        ("The harbour opened in 1931.", False),
        ("Ada did not design the market.", False),
        ("", False),
    ],
)
def test_refusals_are_recognised(text, refusal):
    assert refuses(text) is refusal


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=200), st.lists(st.text(max_size=120), max_size=4), st.text(min_size=1, max_size=40))
def test_any_text_is_checked_the_same_way_twice(text, sources, question):
    found = check(question, text, passages(*sources), HASH)
    assert found == check(question, text, passages(*sources), HASH)
    for one in found:
        assert text[one.start : one.end] == one.text
        assert 0 <= one.score <= 1
        assert one.supported <= (not one.missing)
        assert (one.citation is None) is not one.supported
        assert one.citation is None or one.citation < len(sources)
    assert len(measure(question, text, passages(*sources), HASH)) == len(found)


@settings(max_examples=50, deadline=None)
@given(st.text(min_size=1, max_size=150))
def test_a_text_never_lacks_its_own_names(text):
    for one in check("What is said?", text, passages(text), HASH):
        assert one.missing == ()
