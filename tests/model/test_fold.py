"""The fold's laws: segments, steps, tails, skipped steps, determinism, no surprise inputs."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from networks import LLAMA, drain, network

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.model.fold import Segment, Step, read, score, segments
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.meta import sequence_loss
from ttt_memory.model.tiny import ByteTokenizer, tiny
from ttt_memory.model.transformer import Transformer

NONE = np.zeros(0, np.int32)


def loaded(net: Transformer) -> LoadedModel:
    return LoadedModel("test", net.requires_grad_(False), ByteTokenizer(), "0", net.dtype)


def ids(count: int, seed: int = 0, vocabulary: int = 120) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, vocabulary, count).astype(np.int32)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 300), st.integers(0, 60), st.booleans())
def test_segments_are_the_document_in_order_with_the_right_context(size: int, before: int, append: bool) -> None:
    tokens, preceding = ids(size), ids(before, seed=1)
    cut = list(segments(tokens, preceding, LLAMA, append=append))
    assert np.array_equal(np.concatenate([NONE, *(s.tokens for s in cut)]), tokens)
    stream = np.concatenate((preceding, tokens)) if append else tokens
    origin = len(stream) - len(tokens)
    for index, segment in enumerate(cut):
        assert 1 <= len(segment.tokens) <= LLAMA.segment_tokens
        first = origin + index * LLAMA.segment_tokens
        limit = LLAMA.append_context_tokens if index == 0 else LLAMA.context_tokens
        assert np.array_equal(segment.context, stream[max(0, first - limit) : first])
    assert all(len(s.tokens) == LLAMA.segment_tokens for s in cut[:-1])


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_reading_is_the_sequence_loss_that_training_trains(decay: float) -> None:
    """Tails and the start token included: losses, gradient norms and final weights of the differentiable twin."""
    net = network(dtype=torch.float64, inner=InnerConfig(mini_batch=16, rate=0.7, decay=decay))
    model, tokens = loaded(net), ids(40)
    before = model.initial_state().digest()
    state, steps = drain(read(model, model.initial_state(), Segment(NONE, tokens)))
    targets = torch.from_numpy(tokens).long()
    inputs = torch.cat((torch.tensor([LLAMA.start_token]), targets[:-1]))
    assert model.initial_state().digest() == before
    twin = sequence_loss(net.requires_grad_(True), inputs, targets)
    assert [s.tokens for s in steps] == [16, 16, 8]
    assert np.allclose([s.loss for s in steps], twin.chunk_losses.detach(), atol=1e-6)
    assert np.allclose([s.grad_norm for s in steps], twin.grad_norms.detach(), atol=1e-5)
    assert twin.states[-1].distance(state) < 1e-5 * twin.states[-1].distance(twin.states[0])


def test_a_tail_moves_by_its_share_after_the_clip() -> None:
    model = loaded(network(inner=InnerConfig(mini_batch=16, rate=1.0, clip=1e-3)))
    w0 = model.initial_state()
    moved = {n: drain(read(model, w0, Segment(NONE, ids(n))))[0].distance(w0) for n in (4, 16)}
    assert moved[16] == pytest.approx(1e-3, rel=1e-3)
    assert moved[4] == pytest.approx(1e-3 * 4 / 16, rel=1e-3)


@pytest.mark.parametrize("rule", ["sgd", "muon"])
def test_decay_draws_the_state_back_to_w0(rule: str) -> None:
    rate = 0.5 if rule == "sgd" else 0.01
    free, held = (
        loaded(network(inner=InnerConfig(rule=rule, mini_batch=16, rate=rate, decay=decay))) for decay in (0.0, 0.3)
    )
    w0 = free.initial_state()
    far, near = (drain(read(m, w0, Segment(NONE, ids(64))))[0].distance(w0) for m in (free, held))
    assert 0 < near < 0.9 * far


def test_reading_changes_nothing_it_was_given_and_repeats_itself() -> None:
    model, segment = tiny(), Segment(NONE, tiny().tokenizer.encode("The quick brown fox jumps over it. " * 20)[:500])
    w0 = model.initial_state()
    before = w0.digest()
    first, _ = drain(read(model, w0, segment))
    second, _ = drain(read(model, w0, segment))
    assert w0.digest() == before
    assert first.digest() == second.digest() != before
    own = first.digest()
    drain(read(model, first, segment))
    assert first.digest() == own


def test_two_folds_interleaved_do_not_touch_each_other() -> None:
    model = tiny()
    one, two = (Segment(NONE, model.tokenizer.encode(text * 30)[:400]) for text in ("first text ", "another one "))
    alone = [drain(read(model, model.initial_state(), s))[0].digest() for s in (one, two)]
    running, results = [read(model, model.initial_state(), s) for s in (one, two)], {}
    while len(results) < 2:
        for index, fold in enumerate(running):
            if index not in results:
                assert torch.is_grad_enabled()
                try:
                    next(fold)
                except StopIteration as stop:
                    results[index] = stop.value.digest()
    assert [results[0], results[1]] == alone


def test_context_is_read_but_not_scored_and_matters() -> None:
    model = loaded(network())
    context, tokens = ids(24, seed=3), ids(40)
    state, steps = drain(read(model, model.initial_state(), Segment(context, tokens)))
    assert [type(step) for step in steps] == [type(None)] * 2 + [Step] * 3
    assert sum(step.tokens for step in steps if step) == 40
    other, _ = drain(read(model, model.initial_state(), Segment(context[::-1].copy(), tokens)))
    assert state.digest() != other.digest()


def test_score_is_the_loss_before_writing() -> None:
    model = loaded(network())
    segment = Segment(ids(10, seed=5), ids(16))
    state = model.initial_state()
    nll, _ = drain(score(model, state, segment))
    _, steps = drain(read(model, state, segment))
    assert nll.dtype == np.float32
    assert nll.shape == (16,)
    assert nll.mean() == pytest.approx(steps[-1].loss, abs=1e-5)
    plain, _ = drain(score(model, None, segment))
    assert not np.allclose(plain, nll)
    assert drain(score(model, state, Segment(NONE, NONE)))[0].shape == (0,)


def test_a_step_that_is_not_finite_is_skipped_and_said() -> None:
    net = network(inner=InnerConfig(mini_batch=16))
    with torch.no_grad():
        net.embedding[7] = float("inf")
    model = loaded(net)
    tokens = np.full(48, 3, np.int32)
    tokens[40] = 7
    w0 = model.initial_state()
    before, _ = drain(read(model, w0, Segment(NONE, tokens[:32])))
    state, steps = drain(read(model, w0, Segment(NONE, tokens)))
    assert [step.skipped for step in steps][-1]
    assert state.is_finite()
    poisoned = [step.skipped for step in steps]
    assert state.digest() == (before.digest() if poisoned == [False, False, True] else w0.digest())


@settings(max_examples=15, deadline=None)
@given(st.lists(st.sampled_from([0, 10, 32, 65, 255, 256, 257, 258]), min_size=1, max_size=4), st.integers(1, 300))
def test_odd_texts_never_leave_a_state_that_is_not_finite(pattern: list[int], length: int) -> None:
    model = tiny()
    tokens = np.resize(np.array(pattern, np.int32), length)
    state = model.initial_state()
    for segment in segments(tokens, NONE, model.config, append=False):
        state, steps = drain(read(model, state, segment))
        assert not any(step.skipped for step in steps if step)
    assert state.is_finite()


@pytest.mark.parametrize("bad", [np.array([-1]), np.array([259]), np.zeros((2, 2), np.int32)])
def test_ids_outside_the_vocabulary_are_refused(bad: np.ndarray) -> None:
    model = tiny()
    for segment in (Segment(NONE, bad), Segment(bad, np.array([1]))):
        with pytest.raises(InvalidInputError, match="not a row of token ids"):
            drain(read(model, model.initial_state(), segment))


def test_the_rates_in_the_weights_decide() -> None:
    net = network()
    with torch.no_grad():
        net.inner_rates.copy_(torch.tensor([0.0, 1.0]))
    model = loaded(net)
    w0 = model.initial_state()
    state, _ = drain(read(model, w0, Segment(NONE, ids(32))))
    assert torch.equal(state.gate[0], w0.gate[0])
    assert not torch.equal(state.gate[1], w0.gate[1])


def test_bf16_computing_keeps_fp32_masters() -> None:
    model = loaded(network().bfloat16())
    w0 = model.initial_state()
    state, _ = drain(read(model, w0, Segment(NONE, ids(64))))
    assert {tensor.dtype for tensor in state.tensors().values()} == {torch.float32}
    exact, _ = drain(read(loaded(network()), loaded(network()).initial_state(), Segment(NONE, ids(64))))
    assert state.distance(exact) < 0.5 * exact.distance(w0)


def test_a_plain_transformer_can_be_scored() -> None:
    config: ModelConfig = replace(LLAMA, dynamic_layers=0)
    model = loaded(network(config))
    nll, _ = drain(score(model, None, Segment(NONE, ids(20))))
    assert np.isfinite(nll).all()
