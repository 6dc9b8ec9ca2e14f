"""Laws of second derivatives that hold whatever the values are; they catch a dropped term that first orders do not."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from ttt_kernels.cross_entropy import linear_cross_entropy
from ttt_kernels.inner_update import inner_update
from ttt_kernels.swiglu import swiglu

sys.path.insert(0, str(Path(__file__).parent))
from derivatives import furthest, random_like

from tests.needs import need

Scalar = Callable[..., Tensor]


def operation(name: str, impl: str) -> tuple[Scalar, list[tuple[int, ...]]]:
    """A function of tensors of the given shapes to a scalar, curved in every one of them."""
    if name == "cross_entropy":
        targets = torch.tensor([0, 6, 3, 3])
        return lambda h, w: linear_cross_entropy(h, w, targets, impl=impl).square().sum(), [(4, 5), (7, 5)]
    if name == "swiglu":
        return lambda *t: swiglu(*t, impl=impl).square().sum(), [(4, 5), (6, 5), (5, 3)]

    def write(*t: Tensor) -> Tensor:
        step = inner_update(t[:2], t[2:4], t[4], rule=name, clip=1.0, impl=impl)
        return torch.stack([step.norm, *((w**3).sum() for w in step.weights)]).sum()

    return write, [(4, 3), (2, 5), (4, 3), (2, 5), (2,)]


NAMES = pytest.mark.parametrize("name", ["cross_entropy", "swiglu", "sgd", "muon"])


def leaves(shapes: list[tuple[int, ...]], dtype: torch.dtype) -> list[Tensor]:
    return [t.requires_grad_() for t in random_like([torch.empty(s, dtype=dtype) for s in shapes], 0)]


def along(run: Scalar, inputs: list[Tensor], direction: list[Tensor]) -> list[Tensor]:
    """Hessian times direction, reverse over reverse."""
    first = torch.autograd.grad(run(*inputs), inputs, create_graph=True)
    return list(torch.autograd.grad(dot(list(first), direction), inputs))


def dot(a: list[Tensor], b: list[Tensor]) -> Tensor:
    return torch.stack([(x * y).sum() for x, y in zip(a, b, strict=True)]).sum()


@NAMES
def test_forward_over_reverse_is_reverse_over_reverse(name: str) -> None:
    run, shapes = operation(name, "reference")
    inputs = leaves(shapes, torch.float64)
    direction = random_like(inputs, 1)
    gradient = torch.func.grad(run, argnums=tuple(range(len(inputs))))
    _, forward = torch.func.jvp(gradient, tuple(t.detach() for t in inputs), tuple(direction))
    assert furthest(list(forward), along(run, inputs, direction)) < 1e-10


@NAMES
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_the_hessian_is_symmetric(name: str, impl: str) -> None:
    if impl == "triton":
        need("triton", "triton")
    exact = impl == "reference"
    run, shapes = operation(name, impl)
    inputs = leaves(shapes, torch.float64 if exact else torch.float32)
    u, v = random_like(inputs, 1), random_like(inputs, 2)
    one, other = dot(u, along(run, inputs, v)), dot(v, along(run, inputs, u))
    assert one.abs() > 1e-3
    assert (one - other).abs() < (1e-10 if exact else 2e-4) * one.abs().clamp_min(1)


@NAMES
def test_the_hessian_is_the_slope_of_the_gradient(name: str) -> None:
    """Triton's second derivative against differences of the reference's first, in float64."""
    need("triton", "triton")
    run, shapes = operation(name, "triton")
    inputs = leaves(shapes, torch.float32)
    direction = random_like(inputs, 1)
    plain, step = operation(name, "reference")[0], 1e-5
    moved = []
    for sign in (1, -1):
        at = [(t.detach().double() + sign * step * d).requires_grad_() for t, d in zip(inputs, direction, strict=True)]
        moved.append(torch.autograd.grad(plain(*at), at))
    slope = [(a - b) / (2 * step) for a, b in zip(*moved, strict=True)]
    assert furthest(along(run, inputs, direction), slope) < 1e-4


def test_no_gradient_is_computed_that_the_running_pass_does_not_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inner step asks for the hidden states' gradient alone; head and static MLPs require one all the same."""
    need("triton", "triton")
    shapes: list[tuple[int, ...]] = []
    product = torch.mm

    def counted(a: Tensor, b: Tensor) -> Tensor:
        shapes.append((a.shape[0], b.shape[1]))
        return product(a, b)

    monkeypatch.setattr(torch, "mm", counted)
    h, w, gate_up, down = leaves([(4, 5), (7, 5), (6, 5), (5, 3)], torch.float32)
    outputs = {
        "cross_entropy": partial(linear_cross_entropy, h, w, torch.tensor([0, 6, 3, 3]), impl="triton"),
        "swiglu": partial(swiglu, h, gate_up, down, impl="triton"),
    }
    weights = {"cross_entropy": [w], "swiglu": [gate_up, down]}
    for name, run in outputs.items():
        sizes = {tuple(t.shape) for t in weights[name]}
        for graph in (False, True):
            out = run()
            shapes.clear()
            torch.autograd.grad(out.sum(), h, create_graph=graph)
            assert not sizes & set(shapes), name
        out = run()
        assert all(g.any() for g in torch.autograd.grad(out.square().sum(), [h, *weights[name]]))
