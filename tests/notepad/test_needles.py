"""Exact recall with the real embedder: facts scattered in a long text, asked by name and by code.

Names share their parts, and these parts are words of the text around them. `make test-all` asks for 200 facts in about
100,000 tokens, as tests/memory does through `ask`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notepad.helpers import Pad
from tests.notepad.needles import Needle, haystack, needles
from ttt_memory.answerers.extract import extract
from ttt_memory.ledger import Ledger
from ttt_memory.notepad.embedders import Embedder

SIZES = [pytest.param((50, 10_000), id="50"), pytest.param((200, 55_000), id="200", marks=pytest.mark.slow)]


class Full(Pad):
    """A notepad with facts in it."""

    facts: list[Needle]


@pytest.fixture(scope="module", params=SIZES)
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, minilm: Embedder) -> Iterator[Full]:
    count, words = request.param
    path: Path = tmp_path_factory.mktemp("needles") / "memory.db"
    with Ledger.open(f"sqlite:///{path}") as ledger:
        pad = Full(ledger.tenant("a"), minilm)
        pad.facts = needles(count)
        for text in haystack(pad.facts, words):
            pad.put(text)
        yield pad


@pytest.mark.parametrize("how", ["by name", "by code", "bare code"])
def test_every_needle_is_the_first_hit(full: Full, how: str) -> None:
    asked = {n: dict(zip(("by name", "by code", "bare code"), n.questions, strict=True))[how] for n in full.facts}
    hits = {needle: full.search(question, limit=3) for needle, question in asked.items()}
    missed = [asked[needle] for needle, found in hits.items() if needle.fact not in found[0].text]
    assert not missed
    for found in hits.values():
        full.assert_exact(found)


def test_the_first_citation_quotes_the_needle(full: Full) -> None:
    for number, needle in enumerate(full.facts[::6]):
        answer = extract(question := needle.questions[number % 3], full.search(question, limit=8), full._embedder)
        first = answer.citations[0]
        assert needle.fact in first.text, question
        assert needle.fact in answer.text
        assert answer.grounded
        assert full.ledger.text(first.document_id)[first.start : first.end] == first.text
