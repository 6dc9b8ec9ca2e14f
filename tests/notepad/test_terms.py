"""Terms: code-shaped tokens whole and in parts, every script, the query cut by the index's own rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttt_memory.notepad.terms import count_terms, expand, is_code, query_terms, terms

CODES = ["sk-live_AbC-42", "QX-9317", "10.0.0.1", "user@example.com", "parseHTTPHeader", "a1b2c3d4", "/etc/app.conf"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Café CAFÉ cafe\u0301", {"cafe": 3}),
        ("ﬁne ﬀ", {"fine": 1, "ff": 1}),
        ("Caroline's keys, O'Brien’s", {"carolin": 1, "key": 1, "o'brien": 1, "brien": 1}),
        ("1,299 people", {"1299": 1, "peopl": 1}),
        ("東京都", {"東京都": 1, "東京": 1, "京都": 1}),
        ("हिन्दी", {"हिन्दी": 1}),
        ("", {}),
        ("!!! --- …", {}),
    ],
)
def test_terms_of(text: str, expected: dict[str, int]) -> None:
    assert count_terms(text) == expected


def test_codes_are_kept_whole_and_in_parts() -> None:
    assert expand("sk-live_AbC-42") == ("sk-live_abc-42", "sk", "live", "abc", "42", "ab", "c")
    assert {"parsehttpheader", "http", "header"} <= set(expand("parseHTTPHeader"))
    assert {"path/to/qx-9317.log", "qx-9317", "9317", "log"} <= set(expand("path/to/QX-9317.log"))


@pytest.mark.parametrize("code", CODES)
@pytest.mark.parametrize("around", ["{}", "({})", "key={}.", '"{}",', "see {}: now", "<{}>", "{}\n", "「{}」"])
def test_a_code_is_found_by_the_terms_of_its_query(code: str, around: str) -> None:
    weights, codes = query_terms(f"What is {code}?")
    held = count_terms(around.format(code))
    assert weights.keys() <= held.keys()
    assert codes
    assert set(codes) <= held.keys()


@pytest.mark.parametrize("word", ["well-known", "Paris", "the", "42", "O'Brien", "USA", "naïve"])
def test_words_are_not_codes(word: str) -> None:
    assert not is_code(word)


def test_stop_words_leave_queries_unless_nothing_else_is_there() -> None:
    assert set(query_terms("What is the name of the ship?")[0]) == {"name", "ship"}
    assert query_terms("who is it?")[0]
    assert query_terms("?!")[0] == {}


@pytest.mark.parametrize("pair", [("keys", "key"), ("stories", "story"), ("walked", "walking"), ("used", "used")])
def test_endings_meet(pair: tuple[str, str]) -> None:
    assert [*terms(pair[0])] == [*terms(pair[1])]


@given(st.text(max_size=300))
def test_any_text_has_terms_that_are_stable_under_casefolding(text: str) -> None:
    counts = count_terms(text)
    assert counts == count_terms(text)
    assert all(term and count > 0 and not any(c.isspace() for c in term) for term, count in counts.items())


def test_endless_words_are_bounded() -> None:
    assert max(map(len, count_terms("x" * 100_000))) <= 1_024
