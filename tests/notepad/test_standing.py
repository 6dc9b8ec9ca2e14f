"""Standing instructions and preferences: what counts as one, and that it is recalled where it bears on a question."""

from __future__ import annotations

import pytest

from tests.notepad.helpers import Pad
from ttt_memory.ledger import Ledger
from ttt_memory.notepad.embedders import Embedder
from ttt_memory.notepad.standing import MARKERS, is_standing
from ttt_memory.notepad.terms import count_terms

STANDING = [
    "Always include the type hints when I ask about Python.",
    "Thanks! Never use tables, please.",
    "please always answer in metric units",
    "From now on, call me Sam.",
    "Whenever I mention a date, write it as 2026-11-22.",
    "I really prefer window seats.",
    "I'd rather take the train than fly.",
    "I’d prefer short answers.",
    "Remember my preference for tea.",
    "Hello\nAlways answer in German",
]
PASSING = ["I always forget the units.", "It never rained.", "Do you prefer tea?", "He asked me for now.", ""]


@pytest.mark.parametrize("text", STANDING)
def test_what_is_meant_to_last_is_recognised_and_can_be_looked_up(text: str) -> None:
    assert is_standing(text)
    assert count_terms(text).keys() & set(MARKERS)


@pytest.mark.parametrize("text", PASSING)
def test_what_is_said_in_passing_is_not(text: str) -> None:
    assert not is_standing(text)


@pytest.fixture
def chat(ledger: Ledger, minilm: Embedder) -> Pad:
    pad = Pad(ledger.tenant("a"), minilm)
    turns = [
        ("user", "Which options do I have for a weekend in Porto?"),
        ("assistant", "For a weekend in Porto you could walk along the river, or take the tram to the sea."),
        ("user", "Always say how much it costs when I ask about travel."),
        ("assistant", "Noted."),
        ("user", "How far is Porto from Lisbon?"),
        ("assistant", "Porto is 313 km from Lisbon, about three hours by train."),
        ("user", "Is a weekend in Porto enough?"),
        ("assistant", "A weekend is enough for the old town of Porto."),
    ]
    for place, (role, text) in enumerate(turns):
        pad.put(text, stream="chat", sequence=place, metadata={"role": role})
    return pad


def test_an_instruction_is_recalled_before_passages_that_are_liker(chat: Pad, monkeypatch: pytest.MonkeyPatch) -> None:
    question = "Can you suggest a weekend trip?"
    assert chat.search(question)[0].text == "Always say how much it costs when I ask about travel."
    monkeypatch.setattr("ttt_memory.notepad.ranking.is_standing", lambda text: False)
    assert "weekend in Porto" in chat.search(question)[0].text


def test_only_what_is_told_to_a_model_counts(ledger: Ledger, minilm: Embedder) -> None:
    """Between people, and in texts that stand alone, "always" is a word like any other."""
    pad = Pad(ledger.tenant("b"), minilm)
    pad.put("Always here for you!", stream="chat", sequence=0, metadata={"speaker": "Ada"})
    pad.put("Never mind.", stream="chat", sequence=1, metadata={"speaker": "Ben"})
    pad.put("Always wear a helmet.")
    pad.put("Always happy to help.", stream="bot", sequence=0, metadata={"role": "assistant"})
    assert not pad._index.table.surroundings.to_model.any()
    pad.put("Never mind.", stream="bot", sequence=1, metadata={"role": "user"})
    assert pad._index.table.surroundings.to_model.tolist() == [False] * 4 + [True]
