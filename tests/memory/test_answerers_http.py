"""Models behind endpoints: the wire formats, and every way in which a server can let its caller down."""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from email.utils import formatdate

import pytest
from ttt_adapters import endpoint
from ttt_adapters.answerers import AnthropicAnswerer, OpenAIAnswerer

from tests.memory.answerers_server import (
    anthropic_stream,
    openai_stream,
    openai_whole,
    serving,
    status,
    text,
)
from tests.memory.helpers import open_tiny
from ttt_memory import AsyncCompressedMemory, Passage
from ttt_memory.errors import (
    EndpointAuthError,
    EndpointError,
    EndpointReplyError,
    EndpointUnavailableError,
    InvalidInputError,
    MissingExtraError,
    TTTMemoryError,
)

KEY = "sk-very-SECRET-4711"
NOTE = Passage(document_id="d", start=0, end=32, text="The harbour is closed on Monday.", score=1.0)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


def said(answerer, question="When is the harbour closed?", passages=(NOTE,)):
    return "".join(answerer.answer(answerer.prompt(question, passages)))


def openai(server, **options):
    return OpenAIAnswerer(f"{server.url}/v1", "reader-1", api_key=KEY, timeout=5, **options)


def anthropic(server, **options):
    return AnthropicAnswerer("reader-1", api_key=KEY, base_url=server.url, timeout=5, **options)


def test_openai_streams_the_notes_and_the_question():
    with serving(openai_stream("On ", "Mon", "day [1].")) as server:
        answerer = openai(server, options={"seed": 7, "max_tokens": None, "max_completion_tokens": 50})
        prompt = answerer.prompt("When is the harbour closed?", [NOTE])
        assert list(answerer.answer(prompt)) == ["On ", "Mon", "day [1]."]
    path, headers, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert body["messages"] == [message.model_dump() for message in prompt.messages]
    assert "[1] The harbour is closed on Monday." in body["messages"][1]["content"]
    assert (body["model"], body["stream"], body["seed"], body["max_completion_tokens"]) == ("reader-1", True, 7, 50)
    assert "max_tokens" not in body


def test_anthropic_streams_with_a_system_message():
    with serving(anthropic_stream("On ", "Monday.")) as server:
        assert said(anthropic(server)) == "On Monday."
    path, headers, body = server.requests[0]
    assert path == "/v1/messages"
    assert (headers["x-api-key"], headers["anthropic-version"]) == (KEY, "2023-06-01")
    assert "Authorization" not in headers
    assert "notes" in body["system"]
    assert [message["role"] for message in body["messages"]] == ["user"]
    assert body["max_tokens"] == 512


def test_endpoints_that_do_not_stream_and_keys_that_are_not_needed():
    with serving(openai_whole("On Monday.")) as server:
        assert said(OpenAIAnswerer(f"{server.url}/v1/", "m", stream=False)) == "On Monday."
        assert said(OpenAIAnswerer(f"{server.url}/v1", "m")) == "On Monday."
    assert server.requests[0][2]["stream"] is False
    assert "Authorization" not in server.requests[0][1]
    whole = {"type": "message", "content": [{"type": "thinking"}, {"type": "text", "text": "On Monday."}]}
    with serving(text(json.dumps(whole))) as server:
        assert said(anthropic(server)) == "On Monday."


def test_streams_end_with_a_mark_of_either_sort():
    with serving(openai_stream("Yes.", done=False), openai_stream("Yes.", finish=None)) as server:
        assert said(openai(server)) == said(openai(server)) == "Yes."


def test_what_passes_is_tried_again():
    soon = formatdate(time.time() + 1, usegmt=True)
    replies = (status(429, retry_after="0.05"), status(503), status(500, retry_after=soon), openai_stream("Yes."))
    with serving(*replies) as server:
        assert said(openai(server)) == "Yes."
    assert len(server.requests) == 4


def test_retry_after_is_waited_for_and_not_too_long():
    with serving(status(429, retry_after="0.3"), openai_stream("Yes.")) as server:
        started = time.monotonic()
        assert said(openai(server)) == "Yes."
        assert time.monotonic() - started >= 0.3
    busy = status(429, retry_after="3600")
    with serving(busy) as server, pytest.raises(EndpointUnavailableError, match="too busy") as caught:
        said(openai(server))
    assert caught.value.context["retry_after"] == 3600
    assert len(server.requests) == 1


def test_what_does_not_pass_is_given_up():
    reply = status(500, "out of memory")
    with serving(reply) as server, pytest.raises(EndpointUnavailableError, match="out of memory") as caught:
        said(openai(server, retries=2))
    assert len(server.requests) == caught.value.context["attempts"] == 3


@pytest.mark.parametrize(
    ("reply", "error", "words"),
    [
        (status(401, f"Incorrect key: {KEY}"), EndpointAuthError, "api_key="),
        (status(403), EndpointAuthError, "403"),
        (status(404, "no model reader-1"), EndpointError, "no model reader-1"),
        (status(413), EndpointError, "passage_tokens"),
        (status(307, location="http://elsewhere.invalid/"), EndpointError, "keys are not sent elsewhere"),
        (text("<html>Welcome</html>", "text/html"), EndpointReplyError, "not JSON: <html>"),
        (text("[]"), EndpointReplyError, "not a JSON object"),
        (text('{"choices": 3}'), EndpointReplyError, "base_url"),
        (text('{"error": {"message": "quota"}}'), EndpointUnavailableError, "quota"),
        (openai_stream(), EndpointReplyError, "no text"),
        (openai_stream("Half", finish=None, done=False), EndpointReplyError, "before its end mark"),
        (openai_stream("Half", finish=None, done=False, end=False), EndpointReplyError, "broke off"),
        (lambda h: h.stream("data: {nonsense"), EndpointReplyError, "not JSON"),
        (lambda h: h.stream({"error": {"message": "overloaded"}}), EndpointUnavailableError, "overloaded"),
        (lambda h: h.stream({"choices": [{"delta": {"content": [1]}}]}), EndpointReplyError, "content is list"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_failures_are_typed_and_never_show_the_key(reply, error, words):
    with serving(reply) as server, pytest.raises(error) as caught:
        said(openai(server, retries=0))
    assert words in str(caught.value)
    assert KEY not in str(caught.value) + repr(caught.value) + repr(caught.value.context)
    assert caught.value.__cause__ is None
    assert len(server.requests) == 1


def test_anthropic_fails_in_its_own_words():
    busy = anthropic_stream("Half", stop=False, error={"type": "overloaded_error", "message": "busy"})
    with serving(busy) as server, pytest.raises(EndpointUnavailableError, match="busy"):
        said(anthropic(server))
    cut = anthropic_stream("Half", stop=False)
    with serving(cut) as server, pytest.raises(EndpointReplyError, match="broke off"):
        said(anthropic(server))


def test_silence_and_absence():
    def silent(handler):
        time.sleep(1.5)

    with serving(silent) as server, pytest.raises(EndpointUnavailableError, match="took too long"):
        said(OpenAIAnswerer(server.url, "m", timeout=0.2, retries=0))
    with pytest.raises(EndpointUnavailableError, match="cannot be reached") as caught:
        said(OpenAIAnswerer(server.url, "m", retries=1))
    assert caught.value.context["attempts"] == 2


def test_keys_appear_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    with serving(openai_stream("Yes.")) as server:
        answerers = [openai(server), anthropic(server)]
        assert said(answerers[0]) == "Yes."
    shown = "".join(map(repr, answerers)) + "".join(repr(vars(a)) for a in answerers) + repr(answerers[0]._endpoint)
    assert KEY not in shown + caplog.text
    assert f"{server.url}/v1" in repr(answerers[0])


@pytest.mark.parametrize(
    ("base_url", "options"),
    [
        ("ftp://host/v1", {}),
        ("host/v1", {}),
        ("http://[bad", {}),
        (f"http://user:{KEY}@host/v1", {}),
        (f"http://host/v1?key={KEY}", {}),
        ("http://host/v1", {"api_key": f"{KEY}\n"}),
        ("http://host/v1", {"api_key": f"{KEY}…"}),
        ("http://host/v1", {"timeout": 0}),
        ("http://host/v1", {"retries": -1}),
        ("http://host/v1", {"passage_tokens": 0}),
    ],
)
def test_settings_that_cannot_work_are_refused(base_url, options):
    with pytest.raises(InvalidInputError) as caught:
        OpenAIAnswerer(base_url, "m", **options)
    assert KEY not in str(caught.value)


def test_the_budget_keeps_the_best_passages():
    answerer = OpenAIAnswerer("http://host/v1", "m", passage_tokens=100)
    passages = [NOTE.model_copy(update={"text": f"{n} " + "word " * 30}) for n in range(9)]
    prompt = answerer.prompt("What?", passages)
    assert prompt.passages == tuple(passages[:2])
    assert "[2]" in prompt.messages[1].content
    assert "[3]" not in prompt.messages[1].content
    long = answerer.prompt("What?", [NOTE.model_copy(update={"text": "ä" * 5_000})])
    assert 300 < len(long.messages[1].content.encode()) < 500


def test_without_httpx_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "httpx", None)
    with pytest.raises(MissingExtraError, match=r"ttt-memory\[http\]"):
        OpenAIAnswerer("http://host/v1", "m")


def test_ask_reads_what_the_memory_recalls(tmp_path):
    reply = openai_stream("The harbour is closed on Mondays [1]. ", "It has 12 cranes.")
    with serving(reply) as server, open_tiny(tmp_path) as memory:
        memory.ingest("The harbour is closed on Mondays. Bring a coat.", learn=False)
        pieces = memory.ask(
            "When is the harbour closed?", answerer=openai(server), stream=True, explain=True, mode="notepad"
        )
        assert next(pieces) == "The harbour is closed on Mondays [1]. "
        answer = pieces.answer
    assert answer.text == "The harbour is closed on Mondays [1]. It has 12 cranes."
    assert [(claim.supported, claim.missing) for claim in answer.claims] == [(True, ()), (False, ("12",))]
    assert not answer.grounded
    assert answer.citations[answer.claims[0].citation].text == "The harbour is closed on Mondays. Bring a coat."
    assert "12 in none of them" in answer.notes[0]
    assert (answer.contributions.notepad, answer.contributions.weights) == (1.0, 0.0)
    assert answer.prompt is not None
    assert server.requests[0][2]["messages"] == [message.model_dump() for message in answer.prompt.messages]


def test_a_failing_endpoint_is_an_error_of_ask_and_leaves_the_memory_whole(tmp_path):
    with serving(status(401)) as server, open_tiny(tmp_path) as memory:
        memory.ingest("The harbour is closed on Mondays.", learn=False)
        with pytest.raises(EndpointAuthError):
            memory.ask("When is the harbour closed?", answerer=openai(server))
        assert memory.ask("When is the harbour closed?").grounded
        with pytest.raises(InvalidInputError, match="fast weights"):
            memory.ask("The harbour?", answerer=openai(server), mode="weights")


def test_leaving_a_stream_early_ends_the_connection(tmp_path):
    with serving(openai_stream(*(f"word {n} " for n in range(500)))) as server, open_tiny(tmp_path) as memory:
        memory.ingest("The harbour is closed on Mondays.", learn=False)
        answerer = openai(server)
        pieces = memory.ask("When is the harbour closed?", answerer=answerer, stream=True)
        next(pieces)
        pieces.close()
        gc.collect()
        assert all(c.is_idle() or c.is_closed() for c in answerer._endpoint._client._transport._pool.connections)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_awaited(tmp_path, backend):
    import anyio

    async def main(server):
        async with await AsyncCompressedMemory.open(f"sqlite:///{tmp_path}/{backend}.db", model="tiny") as memory:
            await memory.ingest("The harbour is closed on Mondays.", learn=False)
            return await memory.ask("When is the harbour closed?", answerer=openai(server), explain=True)

    with serving(openai_stream("On Mondays.")) as server:
        answer = anyio.run(main, server, backend=backend)
    assert answer.grounded
    assert issubclass(EndpointError, TTTMemoryError)
