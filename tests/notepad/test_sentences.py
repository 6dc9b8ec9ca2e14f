"""Sentences: exact offsets, nothing lost, boundaries where a reader would put them, any input in linear time."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_memory.notepad.sentences import MAX_CHARACTERS, sentences


def cut(text: str) -> list[str]:
    return [text[s.start : s.end] for s in sentences(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("One. Two! Three?", ["One.", "Two!", "Three?"], id="ends"),
        pytest.param('He said "Go." She went.', ['He said "Go."', "She went."], id="quotes"),
        pytest.param("Dr. J. Smith met Mr. Li in the U.S. on Jan. 3. It rained.", None, id="abbreviations"),
        pytest.param("Pi is 3.14. See a.b.c for it.", ["Pi is 3.14.", "See a.b.c for it."], id="numbers"),
        pytest.param("它很好。真的！", ["它很好。", "真的！"], id="chinese"),
        pytest.param("Ann: hi\nBob: hello there", ["Ann: hi", "Bob: hello there"], id="chat"),
        pytest.param("10:01 start\n10:02 stop", ["10:01 start", "10:02 stop"], id="log"),
        pytest.param("# Title\n\n- one\n- two", ["# Title", "- one", "- two"], id="list"),
        pytest.param("a\r\nb\rc", ["a", "b", "c"], id="line-endings"),
    ],
)
def test_boundaries(text: str, expected: list[str] | None) -> None:
    if expected is None:
        expected = ["Dr. J. Smith met Mr. Li in the U.S. on Jan. 3.", "It rained."]
    assert cut(text) == expected


def test_a_hard_wrapped_paragraph_is_joined_and_its_sentences_found() -> None:
    text = (
        "It was the best of times, it was the worst of times, it was the age of\n"
        "wisdom, it was the age of foolishness. It was the epoch of belief, it was\n"
        "the epoch of incredulity.\n\nA new paragraph."
    )
    assert [s.split()[0] for s in cut(text)] == ["It", "It", "A"]
    assert [s.paragraph for s in sentences(text)] == [True, False, True]


@given(st.text(alphabet=st.sampled_from(" \n\t.!?aB。é\r\u2028x"), max_size=300) | st.text(max_size=200))
def test_every_character_that_is_not_space_is_in_one_sentence(text: str) -> None:
    covered = 0
    for start, end, _ in sentences(text):
        assert covered <= start < end <= len(text)
        assert not text[covered:start].strip()
        assert text[start:end] == text[start:end].strip()
        covered = end
    assert not text[covered:].strip()


@pytest.mark.parametrize("unit", ["x", "x ", "x.", ". ", "\n", " ", "a\n", "(", "-", "Mr. ", "\0", "😀", "字。"])
def test_endless_input_is_cut(unit: str) -> None:
    text = unit * (400_000 // len(unit))
    assert all(end - start <= MAX_CHARACTERS for start, end, _ in sentences(text))


def test_keys_of_json_open_lines_of_their_own() -> None:
    keys = [f"{n:08d}-2222-4333-8444-555555555555" for n in range(30)]
    text = json.dumps({key: key[::-1] for key in keys}, indent=1)
    found = [text[start:end] for start, end, _ in sentences(text)]
    assert [line.rstrip(",") for line in found[1:-1]] == [f'"{key}": "{key[::-1]}"' for key in keys]
