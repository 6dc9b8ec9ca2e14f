from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from ttt_kernels.inner_update import inner_update


def draw(seed: int, size: float, dtype: torch.dtype = torch.float64) -> tuple[list[Tensor], list[Tensor], Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(4, 3), (3, 2), (5, 5)]
    weights = [torch.randn(*s, generator=generator, dtype=dtype) for s in shapes]
    grads = [torch.randn(*s, generator=generator, dtype=dtype) for s in shapes]
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt()
    return weights, [g / norm * size for g in grads], torch.tensor([0.5, 1.0, 2.0], dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 99), st.floats(0.01, 10), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([0.0, 0.1]))
def test_sgd_by_hand_and_in_place(seed: int, size: float, clip: float, decay: float) -> None:
    weights, grads, rates = draw(seed, size)
    anchors = [torch.zeros_like(w) for w in weights]
    step = inner_update(weights, grads, rates, clip=clip, decay=decay, anchors=anchors)
    factor = clip / size if clip and size >= clip else 1.0
    assert abs(float(step.norm) - size) < 1e-12 * max(1, size)
    for new, w, g, r in zip(step.weights, weights, grads, rates, strict=True):
        assert (new - (w - r * factor * g - decay * w)).abs().max() < 1e-12
    own = [w.clone() for w in weights]
    written = inner_update(own, grads, rates, clip=clip, decay=decay, anchors=anchors, impl="in_place")
    for new, mine, same in zip(step.weights, own, written.weights, strict=True):
        assert (new - mine).abs().max() < 1e-12
        assert same is mine


@pytest.mark.parametrize("size", [0.3, 3.0])
@pytest.mark.parametrize("rule", ["sgd", "muon"])
def test_derivatives_through_the_clip_and_its_norm(size: float, rule: str) -> None:
    weights, grads, rates = draw(3, size)
    inputs = [t.requires_grad_() for t in (*weights, *grads, rates)]

    def run(*args: Tensor) -> tuple[Tensor, ...]:
        return inner_update(args[:3], args[3:6], args[6], rule=rule, clip=1.0, decay=0.1, anchors=weights).weights

    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_muon_brings_singular_values_near_one_and_ignores_size() -> None:
    torch.manual_seed(0)
    grad = torch.randn(6, 6, dtype=torch.float64)
    zero, rate = [torch.zeros_like(grad)], torch.ones(1, dtype=torch.float64)
    small, large = (inner_update(zero, [grad * s], rate, rule="muon", clip=0).weights[0] for s in (0.01, 100))
    assert (small - large).abs().max() < 1e-9
    values = torch.linalg.svdvals(small)
    assert values.max() < 1.3
    assert values.median() > 0.6
    own = [zero[0].clone()]
    inner_update(own, [grad], rate, rule="muon", clip=0, impl="in_place")
    assert (own[0] - small).abs().max() < 1e-9


@pytest.mark.parametrize("rule", ["sgd", "muon"])
def test_a_zero_gradient_changes_nothing_and_has_finite_derivatives(rule: str) -> None:
    weights, _, rates = draw(0, 1.0)
    grads = [torch.zeros_like(w, requires_grad=True) for w in weights]
    step = inner_update(weights, grads, rates, rule=rule)
    assert all(torch.equal(new, w) for new, w in zip(step.weights, weights, strict=True))
    total = sum(new.square().sum() for new in step.weights) + step.norm
    assert all(torch.isfinite(g).all() for g in torch.autograd.grad(total, grads))


def test_in_place_writes_nothing_for_a_gradient_that_is_not_finite() -> None:
    weights, grads, rates = draw(0, 1.0)
    before = [w.clone() for w in weights]
    grads[1][0, 0] = float("nan")
    step = inner_update(weights, grads, rates, impl="in_place")
    assert not torch.isfinite(step.norm)
    assert all(torch.equal(w, old) for w, old in zip(weights, before, strict=True))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"impl": "x"}, "unknown impl 'x'; valid: 'auto', 'reference', 'in_place'"),
        ({"rule": "adam"}, "unknown rule 'adam'; valid: 'sgd', 'muon'"),
        ({"grads": []}, "grads has 0 tensors"),
        ({"grads": [torch.zeros(3)]}, r"grads\[0\] has shape"),
        ({"grads": [torch.zeros(2, 2, dtype=torch.int64)]}, r"grads\[0\] has dtype"),
        ({"weights": [torch.zeros(2, 2, dtype=torch.int64)]}, r"weights\[0\] has dtype"),
        ({"grads": [torch.zeros(2, 2, device="meta")]}, r"grads\[0\] is on meta, expected cpu"),
        ({"rates": torch.ones(2)}, "rates has shape"),
        ({"rates": torch.ones(1, dtype=torch.int64)}, "rates has dtype"),
        ({"clip": -1.0}, "clip is -1"),
        ({"decay": 0.1}, "anchors is needed"),
        ({"decay": 0.1, "anchors": [torch.zeros(3)]}, r"anchors\[0\] has shape"),
        ({"decay": 0.1, "anchors": [torch.zeros(2, 2, device="meta")]}, r"anchors\[0\] is on meta, expected cpu"),
    ],
)
def test_a_bad_argument_is_named(change: dict, message: str) -> None:
    good = {"weights": [torch.zeros(2, 2)], "grads": [torch.zeros(2, 2)], "rates": torch.ones(1)}
    with pytest.raises(ValueError, match=message):
        inner_update(**{**good, **change})
