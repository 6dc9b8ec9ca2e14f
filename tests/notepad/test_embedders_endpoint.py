"""Embedders of the user's own: behind an endpoint, and from sentence-transformers."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from ttt_adapters import endpoint
from ttt_adapters.embedders import OpenAIEmbedder, SentenceTransformersEmbedder

from tests.memory.answerers_server import embeddings, serving, status, text
from tests.memory.helpers import open_tiny
from ttt_memory import Embedder
from ttt_memory.errors import EndpointReplyError, EndpointUnavailableError, InvalidInputError, MissingExtraError
from ttt_memory.notepad.embedders import load_embedder, resolve

KEY = "sk-very-SECRET-4711"
HASH = load_embedder("hash")


def vector(body):
    """Of the built-in hashing embedder, not of unit length."""
    return (HASH.embed([body])[0] * 3).tolist()


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


def test_it_is_an_embedder_whose_vectors_are_those_of_the_endpoint():
    texts = ["The harbour opens at six.", "", " \n", "word " * 900, "Größe: 日本語"]
    with serving(status(503), embeddings(vector, backwards=True)) as server:
        embedder: Embedder = resolve(OpenAIEmbedder(f"{server.url}/v1", "embed-1", api_key=KEY))
        found = embedder.embed(texts)
        assert embedder.embed([]).shape == (0, 256)
    read = [texts[0], "word " * 253 + "word", texts[4]]  # no text is read beyond max_tokens
    np.testing.assert_allclose(found[[0, 3, 4]], HASH.embed(read), atol=1e-6)
    assert not found[1:3].any()
    assert found.dtype == np.float32
    assert (embedder.name, embedder.fingerprint) == ("openai:embed-1", "openai-embed-1-256-v1")
    path, headers, body = server.requests[0]
    assert (path, headers["Authorization"], body["model"]) == ("/v1/embeddings", f"Bearer {KEY}", "embed-1")
    assert KEY not in repr(embedder) + repr(vars(embedder))
    for one in texts:
        spans = embedder.token_spans(one)
        assert embedder.count_tokens(one) == len(spans)
        assert all(0 <= start < end <= len(one) for start, end in spans)


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (text('{"data": []}'), "KeyError"),
        (text('{"data": [{"index": 0, "embedding": [1, null]}]}'), "finite"),
        (text('{"data": [{"index": 0, "embedding": [1e999, 0]}]}'), "finite"),
        (text('{"data": [{"index": 0, "embedding": "AAAA"}]}'), "ValueError"),
        (text('{"data": [{"index": 0, "embedding": [1, 0, 0]}]}'), "3 numbers, not 2"),
        (text("[1]"), "TypeError"),
    ],
)
def test_replies_that_are_no_vectors(reply, words):
    with serving(reply) as server, pytest.raises(EndpointReplyError, match=words):
        OpenAIEmbedder(server.url, "m", dimensions=2).embed(["a"])


def test_what_cannot_work_is_refused():
    for model, options in (("", {}), ("two words", {}), ("m", {"shorten": True}), ("m", {"dimensions": 0})):
        with pytest.raises(InvalidInputError):
            OpenAIEmbedder("http://host/v1", model, **options)
    with pytest.raises(InvalidInputError, match="count_tokens, token_spans"):
        resolve(object())  # type: ignore[arg-type]


def test_shorter_vectors_are_asked_for():
    with serving(embeddings(lambda _: [1.0, 0.0])) as server:
        OpenAIEmbedder(server.url, "m", dimensions=2, shorten=True).embed(["a"])
    assert server.requests[0][2]["dimensions"] == 2


def test_a_memory_uses_it_and_a_silent_endpoint_leaves_it_whole(tmp_path):
    with serving(embeddings(vector)) as server:
        embedder = OpenAIEmbedder(f"{server.url}/v1", "embed-1", retries=0)
        with open_tiny(tmp_path, embedder=embedder) as memory:
            memory.ingest("The harbour is closed on Mondays.", learn=False)
            assert memory.search("closed harbour")[0].text == "The harbour is closed on Mondays."
            assert memory.stats().embedder == "openai:embed-1"
            assert memory.verify().ok
            server.replies = [status(500)]
            with pytest.raises(EndpointUnavailableError):
                memory.ingest("The market opens at nine.", learn=False)
            server.replies = [embeddings(vector)]
            assert len(memory.documents()) == 1
            assert memory.ingest("The market opens at nine.", learn=False).created
            assert memory.verify().ok


def test_sentence_transformers_is_an_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(MissingExtraError, match=r"ttt-memory\[sentence-transformers\]"):
        SentenceTransformersEmbedder("any")
