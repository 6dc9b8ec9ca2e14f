"""The real library, on the default embedder's own weights: the same vectors, and a memory that works with them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.needs import need
from ttt_memory import CompressedMemory
from ttt_memory.artifacts import ARTIFACTS
from ttt_memory.errors import ModelMismatchError

TEXTS = ["Ada Lovelace published the first program in 1843.", "Ünïcode, naïve café!", "a", "word " * 600]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, minilm) -> Path:
    """all-MiniLM-L6-v2 as a folder that sentence-transformers loads."""
    transformers = need("transformers", "dev")
    need("sentence_transformers", "sentence-transformers")
    place = tmp_path_factory.mktemp("all-MiniLM-L6-v2")
    published = ARTIFACTS["minilm"].folder
    for name in ("model.safetensors", "vocab.txt"):
        shutil.copy(published / name, place / name)
    config = transformers.BertConfig(
        vocab_size=30522, hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536
    )
    config.architectures = ["BertModel"]
    config.save_pretrained(place)
    transformers.BertTokenizerFast(vocab=str(place / "vocab.txt"), model_max_length=256).save_pretrained(place)
    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {"idx": n, "name": str(n), "path": f"{n}_{kind}" if n else "", "type": f"sentence_transformers.models.{kind}"}
        for n, kind in enumerate(kinds)
    ]
    (place / "modules.json").write_text(json.dumps(modules))
    (place / "1_Pooling").mkdir()
    (place / "1_Pooling" / "config.json").write_text(
        json.dumps({"word_embedding_dimension": 384, "pooling_mode_mean_tokens": True})
    )
    (place / "2_Normalize").mkdir()
    (place / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 256}))
    return place


@pytest.fixture(scope="module")
def embedder(folder):
    from ttt_adapters.embedders import SentenceTransformersEmbedder

    return SentenceTransformersEmbedder(str(folder), device="cpu")


def test_vectors_are_those_of_the_default_embedder(embedder, minilm):
    theirs, ours = embedder.embed(TEXTS), minilm.embed(TEXTS)
    assert theirs.shape == (len(TEXTS), 384)
    assert theirs.dtype == np.float32
    assert (theirs * ours).sum(1).min() > 0.999
    assert not embedder.embed([" "]).any()


def test_spans_are_those_of_the_text(embedder, minilm):
    for text in TEXTS[:3]:
        assert embedder.token_spans(text) == [tuple(span) for span in minilm.token_spans(text)]


def test_a_memory_works_with_it_and_remembers_it(embedder, tmp_path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with CompressedMemory.open(url, model="tiny", embedder=embedder) as memory:
        memory.ingest("The staging key is MOTH-1947. Grace keeps it.")
        memory.ingest("Bernoulli numbers were computed first.")
        assert "MOTH" in memory.search("Who has the key for staging?")[0].text
    with pytest.raises(ModelMismatchError, match="has to be given"):
        CompressedMemory.open(url)
    with CompressedMemory.open(url, embedder=embedder) as memory:
        assert memory.verify().ok
