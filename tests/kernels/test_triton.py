"""The Triton kernels, interpreted where there is no GPU, against the references: values and both orders."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from ttt_kernels.cross_entropy import linear_cross_entropy
from ttt_kernels.inner_update import inner_update
from ttt_kernels.swiglu import swiglu, swiglu_many

pytest.importorskip("triton", reason="triton is not installed: pip install 'ttt-memory[triton]'")
sys.path.insert(0, str(Path(__file__).parent))
from derivatives import derivatives, furthest

pytestmark = pytest.mark.usefixtures("poison")

TOLERANCE = {torch.float32: 2e-6, torch.float16: 4e-3}
DTYPES = pytest.mark.parametrize("dtype", list(TOLERANCE), ids=str)


def leaves(dtype: torch.dtype, *shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [(torch.randn(s, generator=generator) / s[-1] ** 0.5).to(dtype).requires_grad_() for s in shapes]


@DTYPES
@pytest.mark.parametrize("shape", [(7, 37, 12), (1, 5, 3), (3, 16, 8)], ids=str)
@pytest.mark.parametrize("elements", [1 << 27, 100], ids=["whole", "chunked"])
def test_cross_entropy(dtype: torch.dtype, shape: tuple[int, int, int], elements: int, monkeypatch) -> None:
    from ttt_kernels.cross_entropy.impl import triton

    monkeypatch.setattr(triton, "ELEMENTS", elements)
    monkeypatch.setattr(triton, "_BLOCK", 16)
    rows, vocabulary, width = shape
    inputs = leaves(dtype, (rows, width), (vocabulary, width))
    targets = torch.randint(vocabulary, (rows,), generator=torch.Generator().manual_seed(0))
    ours, theirs = (
        derivatives(lambda h, w, impl=impl: linear_cross_entropy(h, w, targets, impl=impl), inputs)
        for impl in ("triton", "reference")
    )
    assert furthest(ours, theirs) < TOLERANCE[dtype]


@pytest.mark.parametrize("moving", [[0], [1]], ids=["hidden", "weight"])
def test_cross_entropy_where_one_side_is_constant(moving: list[int]) -> None:
    inputs, targets = leaves(torch.float32, (5, 6), (9, 6)), torch.tensor([0, 8, 3, 3, 1])
    results = []
    for impl in ("triton", "reference"):

        def run(*some: Tensor, impl: str = impl) -> Tensor:
            both = [t.detach() for t in inputs]
            both[moving[0]] = some[0]
            return linear_cross_entropy(*both, targets, impl=impl)

        results.append(derivatives(run, [inputs[i] for i in moving]))
    assert furthest(*results) < TOLERANCE[torch.float32]


def test_cross_entropy_of_a_target_outside_the_vocabulary_is_not_a_number() -> None:
    (hidden,) = leaves(torch.float32, (3, 4))
    nll = linear_cross_entropy(hidden, torch.randn(5, 4), torch.tensor([0, 5, -1]), impl="triton")
    assert nll.isfinite().tolist() == [True, False, False]


def test_a_row_of_logits_may_stand_beyond_two_to_the_31_entries() -> None:
    from ttt_kernels.cross_entropy.impl import triton

    stride, vocabulary = 2**31 + 16, 20
    # Pages that are never touched are never allocated.
    z = torch.empty(stride + vocabulary, dtype=torch.float16).as_strided((2, vocabulary), (stride, 1))
    z.copy_(torch.randn(2, vocabulary))
    nll, lse = torch.zeros(2), torch.zeros(2)
    triton.loss_rows(z, torch.tensor([3, 19]), nll, lse)
    expected = torch.nn.functional.cross_entropy(z.float(), torch.tensor([3, 19]), reduction="none")
    assert (nll - expected).abs().max() < 1e-5


@DTYPES
@pytest.mark.parametrize("shape", [(7, 12, 19), (1, 1, 1), (17, 40, 35)], ids=str)
def test_swiglu(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    rows, width, inner = shape
    inputs = leaves(dtype, (rows, width), (2 * inner, width), (width, inner))
    ours, theirs = (derivatives(partial(swiglu, impl=impl), inputs) for impl in ("triton", "reference"))
    assert furthest(ours, theirs) < TOLERANCE[dtype]


@DTYPES
def test_swiglu_over_several_tiles_of_rows(dtype: torch.dtype) -> None:
    inputs = [t.detach() for t in leaves(dtype, (130, 70), (70, 70), (70, 35))]
    assert furthest([swiglu(*inputs, impl="triton")], [swiglu(*inputs)]) < TOLERANCE[dtype]


def test_swiglu_takes_any_leading_dimensions() -> None:
    x, gate_up, down = leaves(torch.float32, (2, 3, 8), (10, 8), (8, 5))
    turned = x.transpose(0, 1)
    assert furthest([swiglu(turned, gate_up, down, impl="triton")], [swiglu(turned, gate_up, down)]) < 1e-6


def tenants(rows: list[int], dtype: torch.dtype) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    x, *weights = (t.detach() for t in leaves(dtype, (sum(rows), 24), *[(70, 24)] * len(rows), *[(24, 35)] * len(rows)))
    return x, weights[: len(rows)], weights[len(rows) :]


@DTYPES
def test_many_tenants(dtype: torch.dtype) -> None:
    rows = [1, 0, 20, 3, 1]
    x, gate_up, down = tenants(rows, dtype)
    ours, theirs = (swiglu_many(x, rows, gate_up, down, impl=impl) for impl in ("triton", "reference"))
    assert furthest([ours], [theirs]) < TOLERANCE[dtype]
    for impl, got in (("triton", ours), ("reference", theirs)):
        alone = [
            swiglu_many(part, [len(part)], [up], [low], impl=impl)
            for part, up, low in zip(x.split(rows), gate_up, down, strict=True)
        ]
        assert torch.equal(torch.cat(alone), got)
    assert torch.equal(ours.argmax(-1), theirs.argmax(-1))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.integers(0, 18), min_size=1, max_size=4), st.randoms(use_true_random=False))
@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_permuting_tenants_permutes_their_rows_bit_for_bit(impl: str, rows: list[int], random: Random) -> None:
    order = random.sample(range(len(rows)), len(rows))
    x, gate_up, down = tenants(rows, torch.float32)
    parts = swiglu_many(x, rows, gate_up, down, impl=impl).split(rows)
    other = swiglu_many(
        torch.cat([x.split(rows)[i] for i in order]),
        [rows[i] for i in order],
        [gate_up[i] for i in order],
        [down[i] for i in order],
        impl=impl,
    )
    assert torch.equal(other, torch.cat([parts[i] for i in order]))


@pytest.mark.parametrize("rule", ["sgd", "muon"])
@pytest.mark.parametrize("size", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_inner_update(rule: str, size: float, decay: float, monkeypatch) -> None:
    from ttt_kernels.inner_update.impl import triton

    monkeypatch.setattr(triton, "BLOCK", 8)
    shapes = [(4, 3), (3, 2), (5, 5)]
    weights, grads, anchors = (leaves(torch.float32, *shapes, seed=seed) for seed in range(3))
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt().detach()
    grads = [(g.detach() / norm * size).requires_grad_() for g in grads]
    rates = torch.tensor([0.5, 1.0, 2.0], requires_grad=True)
    results = []
    for impl in ("triton", "reference"):

        def run(*inputs: Tensor, impl: str = impl) -> Tensor:
            step = inner_update(
                inputs[:3], inputs[3:6], inputs[6], rule=rule, clip=1, decay=decay, anchors=inputs[7:], impl=impl
            )
            return torch.cat([step.norm[None], *(w.flatten() for w in step.weights)])

        results.append(derivatives(run, [*weights, *grads, rates, *(anchors if decay else [])]))
    # The norm has no second derivative at zero.
    ours, theirs = results if size else (result[: 1 + len(weights) * 2 + 1] for result in results)
    assert all(tensor.isfinite().all() for result in results for tensor in result)
    assert furthest(ours, theirs) < (2e-6 if rule == "sgd" else 2e-4)
    own = [w.detach().clone() for w in weights]
    detached = [g.detach() for g in grads]
    options = {"rule": rule, "clip": 1.0, "decay": decay, "anchors": [a.detach() for a in anchors]}
    step = inner_update(own, detached, rates.detach(), impl="triton_in_place", **options)
    flat = torch.cat([step.norm[None], *(w.flatten() for w in own)])
    assert furthest([flat], results[1][:1]) < 1e-5


def test_in_place_writes_nothing_for_a_gradient_that_is_not_finite() -> None:
    weights, grads = [torch.randn(3, 5), torch.randn(4)], [torch.randn(3, 5), torch.randn(4)]
    before = [w.clone() for w in weights]
    for bad in (float("nan"), float("inf")):
        grads[1][2] = bad
        step = inner_update(weights, grads, torch.ones(2), impl="triton_in_place")
        assert not step.norm.isfinite()
        assert all(torch.equal(w, old) for w, old in zip(weights, before, strict=True))


def test_no_rows_at_all() -> None:
    h, w, gate_up, down = leaves(torch.float32, (0, 8), (5, 8), (10, 8), (8, 5))
    nll = linear_cross_entropy(h, w, torch.zeros(0, dtype=torch.int64), impl="triton")
    y = swiglu(h, gate_up, down, impl="triton")
    assert (nll.shape, y.shape) == ((0,), (0, 8))
    first = torch.autograd.grad(nll.sum() + y.sum(), [h, w, gate_up, down])
    assert not any(g.any() for g in first)
    assert swiglu_many(h.detach(), [0], [gate_up.detach()], [down.detach()], impl="triton").shape == (0, 8)


def test_what_a_kernel_would_get_wrong_is_refused() -> None:
    x, gate_up, down = (t.detach() for t in leaves(torch.float32, (2, 8), (10, 8), (8, 5)))
    with pytest.raises(ValueError, match="x has dtype"):
        swiglu(x.double(), gate_up.double(), down.double(), impl="triton")
    with pytest.raises(ValueError, match=r"gate_up\[0\] has strides"):
        swiglu_many(x, [2], [gate_up.T.contiguous().T], [down], impl="triton")
    with pytest.raises(ValueError, match="requires a gradient"):
        swiglu_many(x.requires_grad_(), [2], [gate_up], [down], impl="triton")
    with pytest.raises(ValueError, match=r"weights\[0\] has dtype torch.float16"):
        inner_update([torch.zeros(2, 2).half()], [torch.zeros(2, 2)], torch.ones(1), impl="triton")
    with pytest.raises(ValueError, match=r"weights\[0\] has strides"):
        inner_update([torch.zeros(2, 3).T], [torch.zeros(3, 2)], torch.ones(1), impl="triton_in_place")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"impl": "x"}, "unknown impl 'x'; valid: 'auto', 'reference', 'triton'"),
        ({"rows": [1, 2]}, "rows is"),
        ({"rows": [3, -1]}, "rows is"),
        ({"rows": [2]}, "gate_up and down have 2 and 2 tensors"),
        ({"x": torch.zeros(2, 1, 8)}, "x has shape"),
        ({"gate_up": [torch.zeros(10, 8), torch.zeros(9, 8)]}, r"gate_up\[1\] has shape"),
        ({"down": [torch.zeros(8, 5).double()] * 2}, r"down\[0\] is torch.float64"),
    ],
)
def test_a_bad_argument_of_many_tenants_is_named(change: dict, message: str) -> None:
    good = {"x": torch.zeros(2, 8), "rows": [1, 1]}
    good |= {"gate_up": [torch.zeros(10, 8)] * 2, "down": [torch.zeros(8, 5)] * 2}
    with pytest.raises(ValueError, match=message):
        swiglu_many(**{**good, **change})
