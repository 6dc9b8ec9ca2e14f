"""Vectors: right, of unit length, and the same whatever else is embedded."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from ttt_memory.artifacts import artifact
from ttt_memory.errors import InvalidInputError, ModelFormatError, ModelNotFoundError
from ttt_memory.notepad.embedders import load_embedder
from ttt_memory.notepad.embedders.minilm import MiniLM

TEXTS = [
    "The harbour opens at six.",
    "Passcode sk-live_AbC-42 belongs to the north gate.",
    "Größe und Maß: 日本語 text, 3.14!",
    "word " * 120,
    "long " * 400,
    "x",
]


@pytest.fixture(params=["hash", "minilm"])
def embedder(request):
    return load_embedder("hash") if request.param == "hash" else request.getfixturevalue("minilm")


def test_vectors_are_unit_fp32(embedder):
    vectors = embedder.embed(TEXTS)
    assert vectors.dtype == np.float32
    assert vectors.shape == (len(TEXTS), embedder.dimensions)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_a_vector_depends_on_its_text_alone(embedder):
    together = embedder.embed(TEXTS)
    alone = np.concatenate([embedder.embed([text]) for text in TEXTS])
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(embedder.embed(TEXTS[::-1])[::-1], together)


def test_threads_get_the_same_vectors(embedder):
    expected, found = embedder.embed(TEXTS[:3]), []
    threads = [threading.Thread(target=lambda: found.append(embedder.embed(TEXTS[:3]))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for vectors in found:
        np.testing.assert_array_equal(vectors, expected)


def test_texts_without_tokens_are_zeros(embedder):
    assert not embedder.embed(["", "  \n", "\x00"]).any()
    assert embedder.embed([]).shape == (0, embedder.dimensions)


def test_tokens_beyond_the_limit_change_nothing(embedder):
    text = "long " * embedder.max_tokens
    assert embedder.count_tokens(text) == embedder.max_tokens
    np.testing.assert_array_equal(*embedder.embed([text, text + "tail and more"]))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=60))
def test_spans_lie_in_the_text_and_are_counted(embedder, text):
    spans = embedder.token_spans(text)
    assert embedder.count_tokens(text) == len(spans)
    assert spans == sorted(spans)
    assert all(0 <= start < end <= len(text) for start, end in spans)


def test_one_object_a_process(embedder):
    assert load_embedder(embedder.name) is embedder


def test_unknown_names_are_refused():
    with pytest.raises(InvalidInputError, match="minilm"):
        load_embedder("word2vec")


def test_hashing_finds_shared_words_and_is_the_same_everywhere():
    embedder = load_embedder("hash")
    query, near, far = embedder.embed(["the passcode of the harbour", "harbour passcode: 4711", "green gardens in May"])
    assert query @ near > query @ far + 0.2
    assert np.flatnonzero(embedder.embed(["a"])[0]).tolist() == [63, 112]


@pytest.fixture(scope="module")
def fp32(minilm):
    return MiniLM.load(dtype=torch.float32)


@pytest.fixture(scope="module")
def reference():
    config = BertConfig(
        vocab_size=30_522,
        hidden_size=384,
        num_hidden_layers=6,
        num_attention_heads=12,
        intermediate_size=1536,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    tensors = load_file(artifact("minilm").file("model.safetensors"))
    model.load_state_dict(
        {name: tensor for name, tensor in tensors.items() if not name.startswith("pooler")}, strict=False
    )
    return model


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:12])
def test_fp32_vectors_are_those_of_transformers(fp32, reference, text):
    ids = [101, *[token for token, _, _ in fp32._wordpiece.tokenize(text)[:254]], 102]
    with torch.no_grad():
        hidden = reference(torch.tensor([ids])).last_hidden_state[0].mean(0)
    expected = torch.nn.functional.normalize(hidden, dim=0).numpy()
    np.testing.assert_allclose(fp32.embed([text])[0], expected, atol=1e-5)


def test_bf16_vectors_are_close_to_fp32(fp32):
    cosines = (MiniLM.load(dtype=torch.bfloat16).embed(TEXTS) * fp32.embed(TEXTS)).sum(1)
    assert cosines.min() > 0.999


def test_meaning_orders_sentences(minilm):
    query, near, far = minilm.embed(
        ["How do I reset my password?", "Steps to recover a forgotten login", "The river froze over in January"]
    )
    assert query @ near > query @ far + 0.3


def test_absent_weights_name_the_command_that_fetches_them(own_cache):
    with pytest.raises(ModelNotFoundError) as caught:
        MiniLM.load()
    assert caught.value.fix == "ttt-memory model pull"


def test_damaged_weights_are_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[UNK]\n")
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelFormatError):
        MiniLM.load(tmp_path)
