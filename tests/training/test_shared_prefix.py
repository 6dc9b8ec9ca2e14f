"""A prefix that is computed once for everyone who reads a text: the same bits, and no more than one computation."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from ttt_training.evaluate import shared_prefix
from ttt_training.evaluate.reading import fresh, learn, losses
from ttt_training.evaluate.shared_prefix import SharedPrefix, sharing
from ttt_training.evaluate.subjects import subjects, variant

from ttt_memory.model.cache import Cache
from ttt_memory.model.tiny import tiny
from ttt_memory.model.transformer import Transformer


@pytest.fixture(autouse=True)
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with the tokens of every block that a prefix really computes; nothing is kept from test to test."""
    done, original = [], Transformer.prefix

    def prefix(self: Transformer, x: Tensor, cache: Cache, *, impl: str = "auto") -> tuple[Tensor, Cache]:
        done.append(x.shape[1])
        return original(self, x, cache, impl=impl)

    monkeypatch.setattr(Transformer, "prefix", prefix)
    monkeypatch.setattr(shared_prefix, "_outputs", shared_prefix._Outputs(shared_prefix.LIMIT))
    return done


def ids(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, count).astype(np.int32)


def test_every_name_gets_the_bits_that_it_would_compute(computed: list[int]) -> None:
    model, tokens = tiny(), ids(1300)
    every = [*subjects("swa", model), *subjects("naive", model), *subjects("swa4x", model)]
    alone = [losses(subject, tokens) for subject in every]
    each, once = sum(computed), sum(computed[: len(computed) // len(every)])
    computed.clear()
    for subject, own in zip(every, alone, strict=True):
        np.testing.assert_array_equal(losses(sharing(subject), tokens), own)
    # the narrow window's for five names, and that of the wide window, which is another prefix
    assert once < sum(computed) < each / 2


def test_a_text_that_goes_on_where_another_ended_finds_what_was_read_and_computes_the_rest(computed: list[int]) -> None:
    (subject,) = subjects("swa", tiny())
    long, short = ids(700), ids(700)[:300]
    plain = fresh(subject.model, None, long)
    shared = sharing(subject).model
    fresh(shared, None, short)
    assert fresh(shared, None, long) == plain
    computed.clear()
    assert fresh(shared, None, long) == plain
    assert not computed


def test_memories_of_one_text_differ_and_share(computed: list[int]) -> None:
    (subject,) = subjects("naive", tiny(), rates=(0.5,))
    shared = sharing(subject).model
    text, other = ids(600), ids(600, seed=1)
    _, state = learn(shared, shared.initial_state(), other)
    _, plain = learn(subject.model, subject.model.initial_state(), other)
    assert state.digest() == plain.digest()
    under = [fresh(shared, memory, text) for memory in (None, shared.initial_state(), state)]
    computed.clear()
    assert [fresh(shared, memory, text) for memory in (None, shared.initial_state(), state)] == under
    assert not computed
    assert len(set(under)) > 1


def test_another_prefix_finds_nothing(computed: list[int]) -> None:
    model, tokens = tiny(), ids(300)
    moved = {name: value + 0.01 for name, value in model.net.named_parameters() if name.startswith("blocks.0.qkv")}
    (subject,), (other,) = subjects("swa", model), subjects("swa", variant(model, tensors=moved))
    fresh(sharing(subject).model, None, tokens)
    assert fresh(sharing(other).model, None, tokens) == fresh(other.model, None, tokens)


def test_what_is_longest_unused_goes_when_the_room_is_full(
    computed: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    (subject,) = subjects("swa", tiny())
    model, text = sharing(subject).model, ids(400)
    fresh(model, None, text)
    everything = shared_prefix._outputs._size
    monkeypatch.setattr(shared_prefix, "_outputs", shared_prefix._Outputs(everything - 1))
    plain = fresh(model, None, text)
    fresh(model, None, ids(400, seed=1))
    assert 0 < shared_prefix._outputs._size < everything
    assert fresh(model, None, text) == plain


def test_gradients_are_not_looked_up() -> None:
    model = tiny()
    net = SharedPrefix.of(model.net)
    tokens = torch.from_numpy(ids(20)).long()[None]
    for _ in range(2):
        x = net.embed(tokens).detach().requires_grad_()
        y, _ = net.prefix(x, net.empty_cache().prefix, impl="reference")
        assert y.requires_grad
    assert replace(model, net=net).config == model.config
