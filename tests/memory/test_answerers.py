"""Written answers and explanations through `ask`: answerers of the user's own, claims, prompts."""

from __future__ import annotations

import pytest

from tests.memory.helpers import open_tiny, tenant_bytes
from ttt_memory import Answerer, Message, Prompt
from ttt_memory.answerers.extract import NOTHING_FOUND
from ttt_memory.answerers.generate import OPEN_BOOK
from ttt_memory.errors import InvalidInputError
from ttt_memory.model.generate import Sampling

SOURCE = "The harbour is closed on Mondays. Its oldest crane was built by Ada Moreau in 1931."


class Reader:
    """Says what it is told to, and notes what it read."""

    name, passages = "reader", 3

    def __init__(self, *pieces: str) -> None:
        self.pieces, self.asked, self.closed = pieces, [], False

    def prompt(self, question, passages):
        self.asked.append((question, list(passages)))
        return Prompt(answerer=self.name, messages=(Message(role="user", content=question),), passages=tuple(passages))

    def answer(self, prompt):
        try:
            yield from self.pieces
        finally:
            self.closed = True


@pytest.fixture
def memory(tmp_path):
    with open_tiny(tmp_path) as opened:
        opened.ingest(SOURCE, learn=False)
        opened.ingest("The market sells copper lanterns from eight to noon.", learn=False)
        yield opened


def test_an_object_of_your_own_answers(memory):
    reader = Reader("On Mon", "days.")
    assert isinstance(reader, Answerer)
    pieces = memory.ask("When is the harbour closed?", answerer=reader, stream=True)
    assert list(pieces) == ["On Mon", "days."]
    answer = pieces.answer
    assert (answer.text, answer.grounded, answer.prompt) == ("On Mondays.", True, None)
    assert 0 < answer.confidence < 1
    (claim,) = answer.claims
    assert (claim.supported, answer.text[claim.start : claim.end]) == (True, claim.text)
    assert answer.citations[claim.citation].text == SOURCE
    assert reader.closed
    assert {"search", "first_token", "answer", "check"} <= answer.timings.keys()


def test_what_the_passages_do_not_say_is_reported(memory):
    answer = memory.ask("Who built the crane?", answerer=Reader("Ada Moreau built it in 1931. Pelle Holm painted it."))
    assert [claim.supported for claim in answer.claims] == [True, False]
    assert answer.claims[1].missing == ("Holm",)
    assert answer.claims[1].citation is None
    assert not answer.grounded
    assert answer.notes == ("Not borne out by the passages (Holm in none of them): Pelle Holm painted it.",)


def test_a_refusal_is_not_an_answer(memory):
    answer = memory.ask("Who painted the crane?", answerer=Reader("The notes do not say."))
    assert (answer.grounded, answer.confidence, answer.claims) == (False, 0.0, ())
    assert "found no answer" in answer.notes[0]


def test_nothing_found_asks_nobody(tmp_path):
    reader = Reader("Something.")
    with open_tiny(tmp_path) as empty:
        answer = empty.ask("Who?", answerer=reader)
    assert (answer.text, answer.grounded, reader.asked) == (NOTHING_FOUND, False, [])


def test_it_reads_as_many_passages_as_it_wants_within_the_filter(memory):
    reader = Reader("Yes.")
    memory.ask("harbour market", answerer=reader, limit=1, where={"kind": "none"})
    memory.ask("harbour market", answerer=reader, limit=1)
    assert [len(read) for _, read in reader.asked] == [2]
    assert len(memory.ask("harbour market", answerer=reader, limit=1).citations) == 1


def test_only_what_the_memory_found_is_cited(memory):
    class Inventive(Reader):
        def prompt(self, question, passages):
            made_up = passages[0].model_copy(update={"text": "Pelle Holm painted the crane."})
            return Prompt(answerer="inventive", passages=(made_up, *reversed(passages)))

    said = Inventive("Pelle Holm painted the crane. The market sells copper lanterns.")
    answer = memory.ask("Who painted the crane, and what does the market sell?", answerer=said)
    assert [claim.supported for claim in answer.claims] == [False, True]
    source = {document.id: memory.get(document.id).text for document in memory.documents()}
    for citation in answer.citations:
        assert source[citation.document_id][citation.start : citation.end] == citation.text
    assert "lanterns" in answer.citations[answer.claims[1].citation].text


def test_leaving_early_closes_the_answerer(memory):
    reader = Reader(*"abcdef")
    pieces = memory.ask("The harbour?", answerer=reader, stream=True)
    next(pieces)
    pieces.close()
    assert reader.closed


def test_its_errors_are_the_callers(memory):
    class BrokenError(Exception):
        pass

    class Broken(Reader):
        def answer(self, prompt):
            raise BrokenError
            yield

    with pytest.raises(BrokenError):
        memory.ask("The harbour?", answerer=Broken())
    assert memory.ask("The harbour?").citations


@pytest.mark.parametrize("answerer", ["quote", None, object(), 3])
def test_what_is_no_answerer_is_refused(memory, answerer):
    with pytest.raises(InvalidInputError, match=r"nswerer"):
        memory.ask("The harbour?", answerer=answerer)


def test_an_extract_is_explained_by_the_sentences_that_were_weighed(memory):
    plain = memory.ask("When is the harbour closed?")
    answer = memory.ask("When is the harbour closed?", explain=True)
    assert plain.prompt is None
    assert answer.prompt is not None
    quoted = [sentence for sentence in answer.prompt.considered if sentence.quoted]
    assert [sentence.text for sentence in quoted] == answer.text.split("\n")
    scores = [sentence.score for sentence in answer.prompt.considered]
    assert scores == sorted(scores, reverse=True)
    source = {document.id: memory.get(document.id).text for document in memory.documents()}
    for sentence in answer.prompt.considered:
        assert source[sentence.document_id][sentence.start : sentence.end] == sentence.text
    assert answer.prompt.passages
    assert answer.prompt.messages == ()
    assert set(answer.prompt.signals) == {"similarity", "overlap", "margin"}


def test_a_generated_answer_is_explained_by_the_messages_as_sent(memory, tmp_path):
    before = tenant_bytes(tmp_path, "a")
    sampling = Sampling(max_tokens=8)
    answer = memory.ask("When is the harbour closed?", answerer="generate", explain=True, sampling=sampling)
    assert answer.prompt is not None
    system, user = answer.prompt.messages
    assert (system.role, system.content, user.role) == ("system", OPEN_BOOK, "user")
    assert SOURCE in user.content
    assert user.content.endswith("Question: When is the harbour closed?")
    assert answer.prompt.answerer == "tiny"
    closed = memory.ask("When is the harbour closed?", mode="weights", explain=True, sampling=sampling)
    assert closed.prompt is not None
    assert closed.prompt.messages[1].content == "When is the harbour closed?"
    assert closed.prompt.passages == ()
    assert tenant_bytes(tmp_path, "a") == before
