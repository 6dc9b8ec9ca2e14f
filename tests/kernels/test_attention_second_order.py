"""The closed form of both derivatives, through the Function pair, against autograd of the reference; and laws."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from ttt_kernels.attention.tiles.closed_form import ClosedForm

from tests.kernels.attention_cases import derivatives, draw, run

cases = st.fixed_dictionaries(
    {
        "batch": st.integers(1, 2),
        "heads": st.tuples(st.integers(1, 8), st.integers(1, 3)).map(lambda drawn: (drawn[0] * drawn[1], drawn[1])),
        "length": st.integers(1, 9),
        "width": st.sampled_from([2, 6, 10, 16]),
        "window": st.one_of(st.none(), st.integers(5, 24)),
        "held": st.integers(0, 14),
        "sinks": st.integers(0, 4),
        "starts": st.lists(st.integers(0, 30), min_size=2, max_size=2),
        "turned": st.sampled_from(["no", "halves", "pairs"]),
        "seed": st.integers(0, 1000),
    }
)


@settings(max_examples=40, deadline=None)
@given(cases)
def test_the_closed_form_equals_autograd_of_autograd(case: dict) -> None:
    tensors, options = draw(case)
    ours, theirs = derivatives(tensors, options, passes=ClosedForm()), derivatives(tensors, options, impl="reference")
    for name, expected in theirs.items():
        assert (ours[name] - expected).abs().max() < 1e-10, name


CASE = {
    "batch": 2,
    "heads": (4, 2),
    "length": 5,
    "width": 6,
    "window": 6,
    "held": 8,
    "sinks": 2,
    "starts": [4, 20],
    "turned": "halves",
    "seed": 0,
}


def test_numerical_differentiation_agrees_with_both_derivatives() -> None:
    tensors, options = draw({**CASE, "batch": 1, "heads": (2, 1), "length": 2, "width": 2, "held": 5})

    def function(*leaves: Tensor) -> Tensor:
        return run(dict(zip(tensors, leaves, strict=True)), options, passes=ClosedForm())

    assert torch.autograd.gradcheck(function, tuple(tensors.values()))
    assert torch.autograd.gradgradcheck(function, tuple(tensors.values()))


def hessian_product(
    tensors: dict[str, Tensor], options: dict, weights: Tensor, direction: dict[str, Tensor], **how: object
) -> list[Tensor]:
    """Reverse over reverse: the Hessian of <weights, out> times a direction."""
    leaves = list(tensors.values())
    loss = (run(tensors, options, **how) * weights).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True)
    along = sum((g * direction[name]).sum() for name, g in zip(tensors, first, strict=True))
    return list(torch.autograd.grad(along, leaves))


def test_the_hessian_is_symmetric_and_is_what_forward_over_reverse_and_differences_say() -> None:
    torch.manual_seed(1)
    tensors, options = draw(CASE)
    weights = torch.randn_like(tensors["q"])
    u, v = ({name: torch.randn_like(x) for name, x in tensors.items()} for _ in range(2))
    hv, hu = (hessian_product(tensors, options, weights, d, passes=ClosedForm()) for d in (v, u))
    left = sum((a * b).sum() for a, b in zip(u.values(), hv, strict=True))
    right = sum((a * b).sum() for a, b in zip(v.values(), hu, strict=True))
    assert abs(left - right) < 1e-10

    def gradient(*leaves: Tensor) -> tuple[Tensor, ...]:
        def loss(*inner: Tensor) -> Tensor:
            out = run(dict(zip(tensors, inner, strict=True)), options, impl="reference")
            return (out * weights).sum()

        return torch.func.grad(loss, argnums=tuple(range(len(leaves))))(*leaves)

    still = tuple(x.detach() for x in tensors.values())
    _, forward = torch.func.jvp(gradient, still, tuple(v.values()))
    step = 1e-5
    plus, minus = (gradient(*(x + s * step * d for x, d in zip(still, v.values(), strict=True))) for s in (1, -1))
    for name, ours, tangent, high, low in zip(tensors, hv, forward, plus, minus, strict=True):
        assert (ours - tangent).abs().max() < 1e-10, name
        assert (ours - (high - low) / (2 * step)).abs().max() < 1e-7, name


def test_chunks_with_a_prefix_equal_the_whole_in_both_derivatives() -> None:
    torch.manual_seed(2)
    tensors, options = draw({**CASE, "batch": 1, "length": 12, "held": 0, "sinks": 0, "window": 5, "starts": [0, 0]})
    weights = torch.randn_like(tensors["q"])
    direction = {name: torch.randn_like(x) for name, x in tensors.items()}
    whole = hessian_product(tensors, options, weights, direction, passes=ClosedForm())

    leaves, outs = list(tensors.values()), []
    for first in range(0, 12, 4):
        rows, held = slice(first, first + 4), slice(max(0, first - 5), first)
        part = {name: x[:, :, rows] for name, x in tensors.items()}
        if first:
            part |= {f"p{name}": tensors[name][:, :, held] for name in ("k", "v")}
        outs.append(run(part, options | {"start": first}, passes=ClosedForm()))
    loss = (torch.cat(outs, dim=2) * weights).sum()
    gradient = torch.autograd.grad(loss, leaves, create_graph=True)
    along = sum((g * d).sum() for g, d in zip(gradient, direction.values(), strict=True))
    for ours, expected in zip(torch.autograd.grad(along, leaves), whole, strict=True):
        assert (ours - expected).abs().max() < 1e-10


def test_the_inner_step_may_leave_out_the_prefix_and_the_outer_one_still_reaches_it() -> None:
    tensors, options = draw(CASE)
    leaves = list(tensors.values())
    results = []
    for how in ({"impl": "reference"}, {"passes": ClosedForm(), "prefix_grad": False}):
        out = run(tensors, options, **how)
        inner = [tensors[name] for name in "qkv"]
        first = torch.autograd.grad(out.square().sum(), inner, create_graph=True)
        outer = out.sin().sum() + sum(g.square().sum() for g in first)
        results.append(torch.autograd.grad(outer, leaves))
    for name, theirs, ours in zip(tensors, *results, strict=True):
        assert (ours - theirs).abs().max() < 1e-10, name
    out = run(tensors, options, passes=ClosedForm(), prefix_grad=False)
    prefix = torch.autograd.grad(out.sum(), tensors["pk"], create_graph=True, allow_unused=True)
    assert prefix == (None,)


def test_a_third_derivative_is_refused() -> None:
    tensors, options = draw(CASE)
    out = run(tensors, options, passes=ClosedForm())
    (first,) = torch.autograd.grad(out.sum(), tensors["q"], create_graph=True)
    with pytest.raises(RuntimeError, match="differentiated"):
        torch.autograd.grad(first.square().sum(), tensors["q"], create_graph=True)
