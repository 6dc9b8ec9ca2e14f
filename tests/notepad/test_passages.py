"""Passages: limits, coverage, determinism, whole sentences."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_memory.notepad.embedders import Embedder, load_embedder
from ttt_memory.notepad.passages import MAX_TOKENS, MAX_WORDS, cut

HASH = load_embedder("hash")
WORDS = st.sampled_from(["alpha", "beta.", "gamma!\n", "delta-7,", "\n\n", "é", "字", "x" * 300, "- item\n"])


def check(text: str, embedder: Embedder) -> list[tuple[int, int]]:
    passages = list(cut(text, embedder))
    covered = 0
    for start, end in passages:
        assert covered <= start < end <= len(text)
        assert not text[covered:start].strip(), "text between passages"
        body = text[start:end]
        assert body == body.strip()
        assert len(body.split()) <= MAX_WORDS
        assert embedder.count_tokens(body) <= MAX_TOKENS
        covered = end
    assert not text[covered:].strip()
    assert passages == list(cut(text, embedder))
    return passages


@settings(max_examples=60, deadline=None)
@given(st.lists(WORDS, max_size=700).map(" ".join) | st.text(max_size=400))
def test_passages_cover_the_text_within_the_limits(text: str) -> None:
    check(text, HASH)


@pytest.mark.parametrize("unit", ["x", "x ", "x.", ". ", "\n", "a\n", "é", "字", "😀", "\0a", "<|endoftext|>", "ﷺ"])
def test_hostile_text_is_within_the_limits_of_the_real_embedder(unit: str, minilm: Embedder) -> None:
    check(unit * (20_000 // len(unit)), minilm)


def test_passages_end_where_sentences_do() -> None:
    text = " ".join(f"This is sentence number {i} of a long story." for i in range(200))
    passages = check(text, HASH)
    assert all(text[end - 1] == "." for _, end in passages)
    assert len(passages) < 1.2 * len(text.split()) / MAX_WORDS + 1, "passages are filled"


def test_a_long_passage_ends_at_a_paragraph() -> None:
    first, second = ("word " * 120).strip() + ".", ("other " * 30).strip() + "."
    text = f"{first}\n\n{second}"
    assert [text[start:end] for start, end in check(text, HASH)] == [first, second]


def test_nothing_gives_no_passage() -> None:
    assert list(cut("", HASH)) == list(cut(" \n\t\r ", HASH)) == []
