from __future__ import annotations

import sys
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ttt_kernels.cross_entropy import linear_cross_entropy
from ttt_kernels.cross_entropy.impl import chunked

sys.path.insert(0, str(Path(__file__).parent))
from derivatives import derivatives, furthest


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 150), st.integers(2, 40), st.sampled_from([3, 16, 4096]), st.integers(0, 99))
def test_both_equal_pytorch_to_the_second_order(rows: int, vocabulary: int, slice_: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(vocabulary, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(vocabulary, (rows,), generator=generator)
    expected = derivatives(
        lambda h: torch.nn.functional.cross_entropy(h @ weight.T, targets, reduction="none"), [hidden]
    )
    with patch.object(chunked, "SLICE", slice_):
        for impl in ("reference", "chunked"):
            ours = derivatives(lambda h, impl=impl: linear_cross_entropy(h, weight, targets, impl=impl), [hidden])
            assert furthest(ours, expected) < 1e-12


def test_chunked_in_bf16_is_as_near_as_bf16_allows() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(100, 64), torch.randn(500, 64) / 8, torch.randint(500, (100,))
    exact = linear_cross_entropy(hidden, weight, targets)
    low = hidden.bfloat16(), weight.bfloat16(), targets
    plain = (linear_cross_entropy(*low) - exact).abs().mean()
    assert (linear_cross_entropy(*low, impl="chunked") - exact).abs().mean() < 1.5 * plain


def test_derivatives_of_the_reference() -> None:
    torch.manual_seed(0)
    hidden, weight = (torch.randn(n, 3, dtype=torch.float64, requires_grad=True) for n in (4, 5))
    targets = torch.tensor([0, 4, 2, 2])
    assert torch.autograd.gradcheck(lambda h, w: linear_cross_entropy(h, w, targets), (hidden, weight))
    assert torch.autograd.gradgradcheck(lambda h, w: linear_cross_entropy(h, w, targets), (hidden, weight))


def test_chunked_in_bf16_has_second_derivatives_as_near_as_bf16_allows() -> None:
    torch.manual_seed(0)
    hidden, weight, targets = torch.randn(100, 64), torch.randn(500, 64) / 4, torch.randint(500, (100,))

    def second(dtype: torch.dtype, impl: str) -> list[torch.Tensor]:
        h, w = hidden.to(dtype).requires_grad_(), weight.to(dtype)
        return [d.double() for d in derivatives(lambda h: linear_cross_entropy(h, w, targets, impl=impl), [h])]

    exact, plain = second(torch.float32, "reference"), second(torch.bfloat16, "reference")
    ours = second(torch.bfloat16, "chunked")
    for mine, theirs, true in zip(ours, plain, exact, strict=True):
        assert (mine - true).abs().mean() <= 1.5 * (theirs - true).abs().mean() + 1e-7


def test_chunked_refuses_what_it_does_not_compute() -> None:
    hidden, weight = torch.randn(4, 3, requires_grad=True), torch.randn(5, 3, requires_grad=True)
    targets = torch.tensor([0, 4, 2, 2])
    with pytest.raises(ValueError, match="weight requires a gradient"):
        linear_cross_entropy(hidden, weight, targets, impl="chunked")
    nll = linear_cross_entropy(hidden, weight.detach(), targets, impl="chunked")
    (first,) = torch.autograd.grad(nll.sum(), hidden, create_graph=True)
    with pytest.raises(RuntimeError, match="impl='reference'"):
        torch.autograd.grad(first.square().sum(), hidden, create_graph=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"impl": "cce"}, "unknown impl 'cce'; valid: 'auto', 'reference', 'chunked'"),
        ({"hidden": torch.zeros(4)}, "hidden has shape"),
        ({"weight": torch.zeros(5, 2)}, "weight has shape"),
        ({"weight": torch.zeros(5, 3).double()}, "weight is torch.float64"),
        ({"targets": torch.zeros(3, dtype=torch.int64)}, "targets has shape"),
        ({"targets": torch.zeros(4, dtype=torch.int32)}, "targets has dtype"),
        ({"targets": torch.zeros(4, dtype=torch.int64, device="meta")}, "targets is on meta"),
        ({"targets": torch.tensor([0, 5, 1, 1])}, r"targets holds 0..5, expected ids in 0..4"),
        ({"targets": torch.tensor([0, -100, 1, 1]), "impl": "chunked"}, r"targets holds -100..1"),
    ],
)
def test_a_bad_argument_is_named(change: dict, message: str) -> None:
    good = {"hidden": torch.zeros(4, 3), "weight": torch.zeros(5, 3), "targets": torch.zeros(4, dtype=torch.int64)}
    with pytest.raises(ValueError, match=message):
        linear_cross_entropy(**{**good, **change})
