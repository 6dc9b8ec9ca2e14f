"""Exact recall with the real embedder: 200 facts in about 100,000 tokens, asked by name and by code."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notepad.helpers import Pad
from tests.notepad.needles import haystack, needles
from ttt_memory.answerers.extract import extract
from ttt_memory.ledger import Ledger
from ttt_memory.notepad.embedders import Embedder

FACTS = needles(200)


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory, minilm: Embedder) -> Iterator[Pad]:
    path: Path = tmp_path_factory.mktemp("needles") / "memory.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        pad = Pad(ledger.tenant("a"), minilm)
        tokens = 0
        for text in haystack(FACTS, 55_000):
            pad.put(text)
            tokens += minilm.count_tokens(text)
        assert tokens >= 95_000
        yield pad


@pytest.mark.parametrize("how", ["by name", "by code", "bare code"])
def test_every_needle_is_the_first_hit(full: Pad, how: str) -> None:
    asked = {n: dict(zip(("by name", "by code", "bare code"), n.questions, strict=True))[how] for n in FACTS}
    hits = {needle: full.search(question, limit=3) for needle, question in asked.items()}
    missed = [asked[needle] for needle, found in hits.items() if needle.fact not in found[0].text]
    assert not missed
    for found in hits.values():
        full.assert_exact(found)


def test_the_first_citation_quotes_the_needle(full: Pad) -> None:
    for number, needle in enumerate(FACTS[::6]):
        answer = extract(question := needle.questions[number % 3], full.search(question, limit=8), full._embedder)
        first = answer.citations[0]
        assert needle.fact in first.text, question
        assert needle.fact in answer.text
        assert answer.grounded
        assert full.ledger.text(first.document_id)[first.start : first.end] == first.text
