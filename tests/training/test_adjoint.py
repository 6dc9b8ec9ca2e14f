"""The outer gradient: against the reference implementation's, autograd of everything, and finite differences."""

from __future__ import annotations

import math
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
sys.path.insert(0, str(Path(__file__).parent))
from golden import Case, cases, folder, to_ours
from outer import LLAMA, MIXED, PAPER, naive_gradient, network, segment, worst
from ttt_training.adjoint import Recall, outer_gradient
from ttt_training.passes import steps_of
from ttt_training.pullback import copies, leaves, read_block
from ttt_training.spacing import graph_bytes, kept_bytes, kept_graphs, spacing

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.config import InnerConfig
from ttt_memory.model.fold import Segment, read
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.meta import sequence_loss
from ttt_memory.model.tiny import ByteTokenizer
from ttt_memory.model.transformer import Transformer

SPAN = Recall(0.7, segment(5, 18, seed=9))


def everything(net: Transformer) -> list[str]:
    return [name for name, _ in net.named_parameters()]


@pytest.mark.skipif(not cases(), reason=f"no golden files in {folder()}; TTT_GOLDEN_DIR names another folder")
@pytest.mark.parametrize("method", ["reverse", "tangent"])
@pytest.mark.parametrize("name", cases())
def test_outer_gradients_of_the_reference_implementation(name: str, method: str) -> None:
    case = Case.load(name)
    net = case.net()
    inputs, targets, _ = case.inputs()
    result = outer_gradient(
        net,
        [Segment(inputs[:1].numpy(), targets.numpy())],
        parameters=[n for n in everything(net) if n != "inner_rates"],
        writes=case.meta,
        rate_scale=case.rate_scale,
        method=method,
    )
    assert abs(result.loss - float(case.f64["out/loss"])) < 1e-10
    assert np.abs(np.array(result.mini_batch_losses) - case.f64["out/chunk_losses"].numpy()).max() < 1e-10
    assert worst(result.grads, to_ours(case.config(), case.expected("grad/"))) < 1e-9
    if case.meta:
        expected = case.f64["inner/grad_norm"][:-1]  # nothing reads the last write
        assert np.abs(np.array(result.inner_norms) - expected.numpy()).max() < 1e-10


VARIANTS = {
    "default": (LLAMA, {}, {}),
    "paper": (PAPER, {}, {"rate_scale": 0.4}),
    "no clip, decay": (LLAMA, {"clip": 0.0, "decay": 0.2}, {}),
    "muon": (LLAMA, {"rule": "muon", "rate": 0.02, "decay": 0.1}, {}),
    "mini-batch above the window": (LLAMA, {"mini_batch": 26}, {}),
    "constant cache": (LLAMA, {}, {"kv_grad": False}),
    "first order, constant cache": (PAPER, {}, {"order": 1, "kv_grad": False}),
    "control": (LLAMA, {}, {"writes": False}),
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_adjoint_is_autograd_of_everything(variant: str) -> None:
    """Several segments, tails, short contexts, sinks, a recalled span; both methods; kept states at any distance."""
    config, inner, options = VARIANTS[variant]
    net = network(config, inner=InnerConfig(**({"mini_batch": 12, "rate": 0.7} | inner)))
    expected, theirs = naive_gradient(net, MIXED, recall=SPAN, **options)
    for method in ("reverse", "tangent") if variant == "default" else ("tangent",):
        ours = outer_gradient(net, MIXED, parameters=everything(net), recall=SPAN, method=method, every=3, **options)
        assert ours.recall_loss is not None
        assert abs(ours.loss + SPAN.weight * ours.recall_loss - expected) < 1e-12
        assert worst(ours.grads, theirs) < 1e-9
    # What is not trained is not differentiated: the head's products take another road then.
    dynamic = [name for name in theirs if "w0_" in name or name in ("inner_rates", "final_norm")]
    ours = outer_gradient(net, MIXED, parameters=dynamic, recall=SPAN, **options)
    assert worst(ours.grads, {name: theirs[name] for name in dynamic}) < 1e-9


def test_adjoint_is_reverse_over_reverse_of_the_sequence_loss() -> None:
    net = network().requires_grad_(True)
    one = segment(1, 36)
    stream = torch.from_numpy(np.concatenate((one.context, one.tokens))).long()
    plain = sequence_loss(net, stream[:-1], stream[1:])
    named = dict(net.named_parameters())
    theirs = dict(zip(named, torch.autograd.grad(plain.loss, list(named.values())), strict=True))
    ours = outer_gradient(net, [one], parameters=named)
    assert abs(ours.loss - float(plain.loss.detach())) < 1e-12
    assert worst(ours.grads, theirs) < 1e-9


def test_kept_states_at_any_distance_give_the_same() -> None:
    net = network()
    names = [name for name in everything(net) if "w0_" in name or name == "inner_rates"]
    near, *far = (outer_gradient(net, MIXED, parameters=names, every=every) for every in (1, 2, 5))
    for other in far:
        assert other.loss == near.loss
        assert worst(other.grads, near.grads) < 1e-12


def test_kept_states_fit_the_memory_they_are_given() -> None:
    net = network()
    names = [name for name in everything(net) if "w0_" in name]
    steps = steps_of(MIXED, net.config, writes=True)
    needs = {every: kept_bytes(net, steps, every) for every in range(1, len(steps) + 1)}
    assert spacing(net, steps, every=1, memory=math.inf) == 1
    tight = min(needs.values())
    assert needs[spacing(net, steps, every=1, memory=tight)] == tight < needs[1]
    assert needs[spacing(net, steps, every=1, memory=0)] == tight
    middle = (tight + needs[1]) / 2
    chosen = spacing(net, steps, every=1, memory=middle)
    assert needs[chosen] <= middle
    assert all(needs[every] > middle for every in range(1, chosen))
    wide, narrow = (outer_gradient(net, MIXED, parameters=names, memory=memory) for memory in (math.inf, tight))
    assert worst(narrow.grads, wide.grads) < 1e-12


@pytest.mark.parametrize("writes", [False, True])
def test_kept_graphs_give_the_same_bits_and_read_no_block_twice(writes: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls, plain = network(), [], Transformer.suffix

    def counted(self: Transformer, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(Transformer, "suffix", counted)
    steps = steps_of(MIXED, net.config, writes=writes)
    steps[-1] = replace(steps[-1], share=None)  # nobody reads the last write
    unwritten = {index for index, step in enumerate(steps) if step.share is None}
    assert kept_graphs(net, steps, memory=math.inf) == unwritten
    states, graph = kept_bytes(net, steps, 1), graph_bytes(net, net.config.inner.mini_batch)
    assert kept_graphs(net, steps, memory=states) == set()
    some = kept_graphs(net, steps, memory=states + 2 * graph)
    assert some == set(sorted(unwritten)[-2:])  # the first to be pulled through
    results, counts = [], []
    for memory in (states, states + 2 * graph, math.inf):
        calls.clear()
        results.append(outer_gradient(net, MIXED, parameters=everything(net), writes=writes, memory=memory))
        counts.append(len(calls))
    for other in results[1:]:
        assert other.loss == results[0].loss
        assert all(torch.equal(grad, results[0].grads[name]) for name, grad in other.grads.items())
    assert [counts[0] - count for count in counts] == [0, len(some), len(unwritten)]


def test_a_graph_takes_no_more_than_reckoned() -> None:
    wide = {"hidden": 96, "heads": 6, "head_dim": 16, "mlp": 256, "dynamic_mlp": 256, "window": 64}
    net = network(dtype=torch.float32, **wide).requires_grad_(False)
    weights = copies([p for name, p in net.named_parameters() if "w0_" in name], net.dtype)
    before = {tensor.untyped_storage().data_ptr() for tensor in (*net.parameters(), *weights)}
    x, cache, sizes = torch.randn(1, 64, 96), net.empty_cache().suffix, {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in before:
            sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    cache = read_block(net, leaves(x, weights, cache, kv_grad=False, want_x=False), {}).left.detach()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        graph = read_block(net, leaves(x, weights, cache, kv_grad=True, want_x=False), {})
    assert graph.hidden.requires_grad
    assert sum(sizes.values()) <= graph_bytes(net, 64) <= 2 * sum(sizes.values())


@pytest.mark.skipif(not cases(), reason=f"no golden files in {folder()}; TTT_GOLDEN_DIR names another folder")
@pytest.mark.parametrize(("shortcut", "distance"), [({"kv_grad": False}, 0.402), ({"order": 1}, 0.596)])
def test_shortcuts_are_as_far_off_as_the_reference_says(shortcut: dict[str, Any], distance: float) -> None:
    """The distances of the whole outer gradient that the golden files' README gives for detaching."""
    case = Case.load("case1_base")
    net = case.net()
    inputs, targets, _ = case.inputs()
    theirs = to_ours(case.config(), case.expected("grad/"))
    one = Segment(inputs[:1].numpy(), targets.numpy())
    ours = outer_gradient(net, [one], parameters=theirs, **shortcut).grads
    apart = sum(float((ours[name] - grad).square().sum()) for name, grad in theirs.items())
    whole = sum(float(grad.square().sum()) for grad in theirs.values())
    assert math.sqrt(apart / whole) == pytest.approx(distance, abs=6e-4)


def test_central_finite_differences() -> None:
    net = network()
    ours = outer_gradient(net, MIXED[1:2], parameters=everything(net), recall=SPAN).grads
    random, step = np.random.default_rng(3), 1e-5

    def value() -> float:
        found = outer_gradient(net, MIXED[1:2], parameters=[], recall=SPAN)
        assert found.recall_loss is not None
        return found.loss + SPAN.weight * found.recall_loss

    for name in ("embedding", "blocks.0.qkv", "blocks.1.w0_down", "blocks.2.attn_norm", "inner_rates"):
        parameter = dict(net.named_parameters())[name]
        at = int(random.integers(parameter.numel()))
        entry = parameter.detach().view(-1)
        before = float(entry[at])
        values = []
        for shift in (step, -step):
            entry[at] = before + shift
            values.append(value())
        entry[at] = before
        slope = (values[0] - values[1]) / (2 * step)
        assert slope == pytest.approx(float(ours[name].view(-1)[at]), rel=1e-5, abs=1e-8), name


def test_the_losses_are_those_of_the_product_s_fold() -> None:
    net = network()
    model = LoadedModel("test", net.requires_grad_(False), ByteTokenizer(), "0", net.dtype)
    state, losses, norms = model.initial_state(), [], []
    for one in MIXED:
        reading = read(model, state, one)
        while True:
            try:
                step = next(reading)
            except StopIteration as stop:
                state = stop.value
                break
            if step is not None:
                losses.append(step.loss)
                norms.append(step.grad_norm)
    ours = outer_gradient(net, MIXED, parameters=["inner_rates"])
    assert np.allclose(ours.mini_batch_losses, losses, atol=1e-5)
    assert np.allclose(ours.inner_norms, norms[:-1], rtol=1e-4)
    assert ours.tokens == sum(len(one.tokens) for one in MIXED)


@pytest.mark.parametrize("choice", ["dynamic", "all"])
def test_saved_memory_does_not_grow_with_the_text(choice: str) -> None:
    """Bytes that autograd keeps for one block; what is kept between blocks is one state every `every`."""
    net = network(segment_tokens=1000)
    names = [n for n in everything(net) if choice == "all" or "w0_" in n]
    peaks = []
    for tokens in (60, 240):
        held, peak = 0, 0

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal held
            held += tensor.numel() * tensor.element_size()
            return tensor

        def block_done() -> None:
            nonlocal held, peak
            held, peak = 0, max(peak, held)

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outer_gradient(net, [segment(0, tokens)], parameters=names, on_block=block_done)
        peaks.append(peak)
    assert peaks[0] == peaks[1] > 0


def test_a_frozen_prefix_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    net, calls = network(), []
    plain = Transformer.prefix

    def counted(self: Transformer, *args: object, **kwargs: object) -> object:
        calls.append(1)
        return plain(self, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Transformer, "prefix", counted)
    outer_gradient(net, [segment(0, 48)], parameters=["blocks.1.w0_down"], every=2)
    assert len(calls) == 4


def test_bfloat16_computing_stays_near_single_precision() -> None:
    single = network(dtype=torch.float32)
    names = [name for name in everything(single) if "w0_" in name or name == "inner_rates"]
    exact = outer_gradient(single, MIXED, parameters=names)
    half = network(dtype=torch.float32)
    for name, parameter in half.named_parameters():
        if name not in names:
            parameter.data = parameter.data.bfloat16()
    ours, plain = (outer_gradient(half, MIXED, parameters=names, method=method) for method in ("tangent", "reverse"))
    assert all(grad.dtype == torch.float32 for grad in ours.grads.values())
    assert abs(ours.loss - exact.loss) < 0.05
    assert worst(ours.grads, exact.grads) < max(0.2, 1.5 * worst(plain.grads, exact.grads))


def test_what_is_not_finite_is_said_and_gives_no_gradient() -> None:
    net = network()
    with torch.no_grad():
        net.embedding[:, 0] = math.nan
    result = outer_gradient(net, MIXED, parameters=everything(net))
    assert math.isnan(result.loss)
    assert not result.grads


def test_bad_arguments() -> None:
    net = network()
    with pytest.raises(InvalidInputError, match="token ids"):
        outer_gradient(net, [Segment(np.zeros(0, np.int32), np.array([60]))], parameters=[])
    with pytest.raises(InvalidInputError, match="no token to predict"):
        outer_gradient(net, [segment(4, 0)], parameters=[])
    with pytest.raises(ValueError, match="unknown parameters"):
        outer_gradient(net, MIXED, parameters=["nothing"])
    with pytest.raises(ValueError, match="at least 1"):
        outer_gradient(net, MIXED, parameters=[], every=0)
