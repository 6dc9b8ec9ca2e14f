"""Our model and inner loop against the official implementation's numbers, in float64."""

from __future__ import annotations

import sys
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from golden import FAST, Case, cases, folder, to_ours

from ttt_memory.model.meta import SequenceLoss, pretrain_loss, sequence_loss
from ttt_memory.model.state import FastWeights

VALUE, RELATIVE = 1e-10, 1e-9

pytestmark = pytest.mark.skipif(
    not cases(), reason=f"no golden files in {folder()}; set TTT_GOLDEN_DIR to the folder that holds them"
)


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).norm() / theirs.norm().clamp(min=1e-30))


def run(case: Case, *, rate_scale: float | None = None) -> tuple[SequenceLoss, dict[str, Tensor]]:
    net = case.net()
    if not case.meta:
        result = pretrain_loss(net, *case.inputs())
    else:
        scale = case.rate_scale if rate_scale is None else rate_scale
        result = sequence_loss(net, *case.inputs(), rate_scale=scale)
    named = {name: p for name, p in net.named_parameters() if name != "inner_rates"}
    grads = torch.autograd.grad(result.loss, list(named.values()))
    return result, dict(zip(named, grads, strict=True))


@lru_cache
def solve(name: str) -> tuple[Case, SequenceLoss, dict[str, Tensor]]:
    case = Case.load(name)
    return (case, *run(case))


every = pytest.mark.parametrize("name", cases())
meta = pytest.mark.parametrize("name", [name for name in cases() if Case.load(name).meta])


@every
def test_losses(name: str) -> None:
    case, result, _ = solve(name)
    assert abs(float(result.loss.detach()) - float(case.f64["out/loss"])) < VALUE
    assert (result.chunk_losses.detach() - case.f64["out/chunk_losses"]).abs().max() < VALUE
    assert (result.nll.detach() - case.f64["out/token_nll"]).abs().max() < VALUE
    if "out/logits" in case.f64:
        assert (result.logits.detach() - case.f64["out/logits"]).abs().max() < VALUE


@every
def test_outer_gradient_of_every_parameter(name: str) -> None:
    case, _, grads = solve(name)
    theirs = to_ours(case.config(), case.expected("grad/"))
    assert set(theirs) == set(grads)
    worst = {name: relative(grads[name], theirs[name]) for name in grads}
    assert max(worst.values()) < RELATIVE, worst
    total = torch.stack([grad.square().sum() for grad in grads.values()]).sum().sqrt()
    assert abs(float(total) - float(case.f64["out/outer_grad_norm"])) < 1e-8


@meta
def test_inner_loop(name: str) -> None:
    case, result, _ = solve(name)
    assert (result.grad_norms.detach() - case.f64["inner/grad_norm"]).abs().max() < VALUE
    for part, matrix in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        theirs = case.f64[f"inner/fast_weights/{FAST}.{matrix}.weight"]
        stages = range(len(result.states)) if len(theirs) == len(result.states) else (1, len(result.states) - 1)
        for row, stage in enumerate(stages):
            ours = torch.stack([w.detach().T for w in getattr(result.states[stage], part)])
            assert relative(ours, theirs[row]) < RELATIVE, (part, stage)


@meta
def test_inner_gradients_and_prefix_in_single_precision(name: str) -> None:
    """These are stored in fp32 only, so the reference's own rounding is the tolerance."""
    case, result, _ = solve(name)
    if "prefix/output" in case.f32:
        assert relative(result.prefix.detach().float(), case.f32["prefix/output"]) < 1e-5
    for part, matrix in (("gate", "w1"), ("up", "w3"), ("down", "w2")):
        theirs = case.f32[f"inner/grad/{FAST}.{matrix}.weight"]
        stages = range(len(result.gradients)) if len(theirs) == len(result.gradients) else (0, -1)
        for row, stage in enumerate(stages):
            gradient: FastWeights = result.gradients[stage]
            ours = torch.stack([g.detach().T for g in getattr(gradient, part)]).float()
            assert relative(ours, theirs[row]) < 1e-4, (part, stage)


@meta
def test_cache_of_the_last_chunk(name: str) -> None:
    case, result, _ = solve(name)
    assert result.cache is not None
    for part in ("k", "v"):
        theirs = case.f32[f"kv/{part}_after_chunk"][-1]  # [S, W, D]
        for layer, cached in enumerate(result.cache.layers):
            rows = getattr(cached.recent, part)[0].detach().transpose(0, 1).flatten(1).float()
            filled = theirs[layer, -len(rows) :]
            assert relative(rows, filled) < 1e-5


@meta
def test_no_inner_step(name: str) -> None:
    case = Case.load(name)
    still = sequence_loss(case.net(), *case.inputs(), rate_scale=0.0, create_graph=False)
    assert abs(float(still.loss.detach()) - float(case.f64["no_inner_step/loss"])) < VALUE
    assert (still.chunk_losses.detach() - case.f64["no_inner_step/chunk_losses"]).abs().max() < VALUE
    assert still.states[-1].distance(still.states[0]) == 0


@meta
def test_detaching_the_writes_is_noticed(name: str) -> None:
    """A first-order implementation would fail above: its gradient differs by far more than the tolerance."""
    case = Case.load(name)
    net = case.net()
    result = sequence_loss(net, *case.inputs(), rate_scale=case.rate_scale, create_graph=False)
    named = {name: p for name, p in net.named_parameters() if name != "inner_rates"}
    grads = dict(zip(named, torch.autograd.grad(result.loss, list(named.values())), strict=True))
    theirs = to_ours(case.config(), case.expected("grad/"))
    assert max(relative(grads[name], theirs[name]) for name in grads) > 0.01
