"""The extractive answerer: verbatim quotes with exact offsets, and a plain no where nothing supports an answer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ttt_memory.answerers.extract import NOTHING_FOUND, extract
from ttt_memory.notepad.embedders import load_embedder
from ttt_memory.types import Passage

HASH = load_embedder("hash")
SOURCE = (
    "## Opening hours\n"
    "Q: When does the library open?\n"
    "The library opens at nine on weekdays. It closes at six. On Sundays it stays shut.\n"
    "2024-01-03 10:00 ERROR disk /dev/sda1 is full\n"
    "The director of the library is Ada Moreau.\n"
)


def passage(text: str, *, start: int = 0, score: float = 1.0, document_id: str = "d") -> Passage:
    return Passage(document_id=document_id, start=start, end=start + len(text), text=text, score=score)


def test_the_answer_is_a_quote_and_neither_heading_nor_question() -> None:
    answer = extract("When does the library open on weekdays?", [passage(SOURCE)], HASH)
    assert answer.grounded
    assert "The library opens at nine on weekdays." in answer.text
    assert "Q:" not in answer.text
    assert "##" not in answer.text
    assert 0 < answer.confidence <= 1


def test_lines_of_logs_are_sentences() -> None:
    answer = extract("Which disk is full?", [passage(SOURCE)], HASH)
    assert answer.citations[0].text == "2024-01-03 10:00 ERROR disk /dev/sda1 is full"


def test_offsets_are_of_the_document_not_of_the_passage() -> None:
    body = "Some words before. The director is Ada Moreau. Some words after."
    document = "x" * 17 + body
    answer = extract("Who is the director?", [passage(body, start=17)], HASH)
    first = answer.citations[0]
    assert document[first.start : first.end] == first.text
    assert "The director is Ada Moreau." in first.text


def test_quotes_come_first_then_other_passages_that_bear_on_it() -> None:
    hits = [
        passage("The ferry leaves at eight. Bring a coat.", score=0.9, document_id="a"),
        passage("Tickets for the ferry leaves and returns are sold at eight places.", score=0.8, document_id="b"),
        passage("A ferry that leaves may be late.", score=0.7, document_id="c"),
    ]
    answer = extract("When does the ferry leave?", hits, HASH)
    quoted = answer.text.split("\n")
    assert [citation.text for citation in answer.citations[: len(quoted)]] == quoted
    assert len(answer.citations) == len({(c.document_id, c.start) for c in answer.citations})
    assert {citation.document_id for citation in answer.citations} == {"a", "b", "c"}


def test_neighbouring_sentences_become_one_quote() -> None:
    body = "The comet returns every year. The comet returns in May."
    answer = extract("When does the comet return?", [passage(body)], HASH)
    assert answer.text == body
    assert len(answer.citations) == 1


def test_nothing_found_is_said_plainly() -> None:
    for hits in ([], [passage("Bananas ripen in warm rooms.")], [passage("\n \n")], [passage("")]):
        answer = extract("Who commands the northern fleet?", hits, HASH)
        assert (answer.text, answer.citations, answer.grounded, answer.confidence) == (NOTHING_FOUND, (), False, 0.0)


def test_a_code_wins_over_likeness() -> None:
    hits = [passage("The error code of the pump is unknown. Pump errors are common. E-1042 means the pump is dry.")]
    assert "E-1042 means the pump is dry." in extract("What does error E-1042 of the pump mean?", hits, HASH).text


@given(st.lists(st.text(max_size=120), max_size=5), st.text(min_size=1, max_size=40))
def test_any_passages_and_any_question(texts: list[str], question: str) -> None:
    hits = [passage(text, start=n * 1_000, score=1 / (n + 1), document_id=str(n)) for n, text in enumerate(texts)]
    answer = extract(question, hits, HASH)
    assert answer.grounded is bool(answer.citations)
    for citation in answer.citations:
        number, start = int(citation.document_id), citation.start - int(citation.document_id) * 1_000
        assert texts[number][start : start + citation.end - citation.start] == citation.text
    scores = [citation.score for citation in answer.citations]
    assert scores == sorted(scores, reverse=True)
    assert answer == extract(question, hits, HASH)
