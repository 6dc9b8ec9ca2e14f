"""Late interaction: what is stored, and that it says what the definition says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.notepad.helpers import Pad
from ttt_memory.ledger import Ledger
from ttt_memory.notepad import late
from ttt_memory.notepad.embedders import Embedder, load_embedder


def unit(seed: int, count: int, dimensions: int = 128) -> np.ndarray:
    vectors = np.random.default_rng(seed).normal(size=(count, dimensions)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@given(st.integers(0, 999), st.lists(st.integers(0, 20), max_size=6), st.integers(1, 5))
@settings(max_examples=40, deadline=None)
def test_similarity_is_the_mean_of_the_nearest(seed: int, counts: list[int], words: int) -> None:
    query = unit(seed, words)
    passages = [unit(seed + n, count) for n, count in enumerate(counts, 1)]
    weights = np.random.default_rng(seed).random(words) + 0.1
    found = late.similarity(late.nearest(query, [late.pack(some) for some in passages]), weights.tolist())
    for score, vectors in zip(found, passages, strict=True):
        if len(vectors):
            assert score == pytest.approx(np.average((query @ vectors.T).max(1), weights=weights), abs=0.01)
        else:
            assert np.isnan(score)


def test_a_byte_a_component_and_one_for_the_version() -> None:
    vectors = unit(1, 7)
    data = late.pack(vectors)
    assert len(data) == 1 + 7 * 128
    assert np.abs(late.unpack(data, 7) - vectors).max() < 0.003
    assert late.pack(late.unpack(data, 7)) == data


def test_other_versions_and_nothing_are_unknown() -> None:
    data = late.pack(unit(1, 2))
    other = bytes([late.VERSION + 1]) + data[1:]
    assert np.isnan(late.similarity(late.nearest(unit(2, 3), [None, b"", other]), [1, 1, 1])).all()
    assert not np.isnan(late.similarity(late.nearest(unit(2, 3), [other, data]), [1, 1, 1])[1])


def test_stop_words_and_punctuation_are_left_out(minilm: Embedder) -> None:
    vectors, words = late.embed(minilm, ["What did the harbour master say?", "What?", "..."])
    assert words is not None
    assert [list(found.pieces) for found in words] == [["harbour", "master"], ["what", "?"], [".", ".", "."]]
    assert np.array_equal(vectors, minilm.embed(["What did the harbour master say?", "What?", "..."]))
    assert np.linalg.norm(words[0].vectors, axis=1) == pytest.approx(1, abs=1e-5)


def test_an_embedder_without_token_vectors_works_as_before() -> None:
    vectors, words = late.embed(load_embedder("hash"), ["a harbour"])
    assert vectors.shape == (1, 256)
    assert words is None


def test_token_vectors_are_stored_forgotten_and_copied(ledger: Ledger, minilm: Embedder) -> None:
    pad = Pad(ledger.tenant("a"), minilm)
    kept, gone = pad.put("The kettle in the harbour office is blue."), pad.put("The lighthouse keeper owns a red boat.")
    ids = [row.id for row in pad.ledger.passages_of_all()]
    stored = pad.ledger.token_vectors(ids)
    assert set(stored) == set(ids)
    assert all(data[0] == late.VERSION and len(data) % 128 == 1 for data in stored.values())
    copy = pad.ledger.copy_to("b")
    assert sorted(copy.token_vectors([row.id for row in copy.passages_of_all()]).values()) == sorted(stored.values())
    secret = stored[pad.ledger.passages_of([gone])[0]]
    pad.ledger.forget([gone], expected_version=pad.ledger.head().version)
    assert set(pad.ledger.token_vectors(ids)) == set(pad.ledger.passages_of([kept]))
    copy.drop()
    for file in ledger_files(ledger):
        assert secret[1:129] not in file, "no byte of it is left in the store"


def ledger_files(ledger: Ledger) -> list[bytes]:
    with ledger.store.read() as connection:
        path = connection.exec_driver_sql("PRAGMA database_list").all()[0][2]
    from pathlib import Path

    return [file.read_bytes() for file in Path(path).parent.iterdir()]


def test_what_is_near_in_words_of_another_kind_is_found(ledger: Ledger, minilm: Embedder) -> None:
    pad = Pad(ledger.tenant("a"), minilm)
    wanted = pad.put("My sister adopted two kittens on Sunday.")
    for n in range(12):
        pad.put(f"We talked about the weather of the week, day {n}, and of nothing else.")
    hits = pad.search("Which pets does the family have?")
    assert hits[0].document_id == wanted
    pad.assert_exact(hits)
    assert pad.verify() == []
