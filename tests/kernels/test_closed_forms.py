"""The formulae of the READMEs, which the Triton kernels compute, against autograd of the reference in float64."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from derivatives import derivatives, furthest, random_like
from ttt_kernels.cross_entropy import linear_cross_entropy
from ttt_kernels.inner_update import inner_update
from ttt_kernels.swiglu import swiglu

EXACT = 1e-10


def leaves(seed: int, *shapes: tuple[int, ...]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]


def expected(values: list[Tensor], first: list[Tensor], second: Callable[[list[Tensor]], list[Tensor]]) -> list[Tensor]:
    """The order of `derivatives`: `second(u)` for each first-order gradient's direction alone, then for all."""
    directions = random_like(first, 2)
    zeros = [torch.zeros_like(u) for u in directions]
    result = [*values, *first]
    for chosen in [[i] for i in range(len(first))] + [list(range(len(first)))]:
        result += second([u if i in chosen else z for i, (u, z) in enumerate(zip(directions, zeros, strict=True))])
    return [tensor.detach() for tensor in result]


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 30), st.integers(1, 7), st.integers(0, 99))
def test_cross_entropy(rows: int, vocabulary: int, width: int, seed: int) -> None:
    h, w = leaves(seed, (rows, width), (vocabulary, width))
    y = torch.randint(vocabulary, (rows,), generator=torch.Generator().manual_seed(seed))
    z = (h @ w.T).detach()
    p, hot = torch.softmax(z, -1), torch.nn.functional.one_hot(y, vocabulary).double()
    nll = torch.logsumexp(z, -1) - (z * hot).sum(-1)
    g = random_like([nll], 1)[0][:, None]
    dz = g * (p - hot)

    def second(u: list[Tensor]) -> list[Tensor]:
        t = u[0] @ w.T + h @ u[1].T
        dz2 = g * p * (t - (p * t).sum(-1, keepdim=True))
        return [dz2 @ w + dz @ u[1], dz2.T @ h + dz.T @ u[0], ((p - hot) * t).sum(-1)]

    auto = derivatives(lambda h, w: linear_cross_entropy(h, w, y, impl="reference"), [h, w])
    assert furthest(expected([nll], [dz @ w, dz.T @ h], second), auto) < EXACT


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.integers(1, 11), st.integers(0, 99))
def test_swiglu(rows: int, width: int, inner: int, seed: int) -> None:
    x, gate_up, down = leaves(seed, (rows, width), (2 * inner, width), (width, inner))
    a, b = (x @ gate_up.T).chunk(2, -1)
    s = torch.sigmoid(a)
    silu, slope, bend = a * s, s * (1 + a * (1 - s)), s * (1 - s) * (2 + a * (1 - 2 * s))
    product = silu * b
    dy = random_like([product @ down.T], 1)[0]
    dm = dy @ down
    d_pre = torch.cat((dm * b * slope, dm * silu), -1)

    def second(u: list[Tensor]) -> list[Tensor]:
        ta, tb = (u[0] @ gate_up.T + x @ u[1].T).chunk(2, -1)
        c = dy @ u[2]
        cot_dm = ta * b * slope + tb * silu
        cot = torch.cat((ta * dm * b * bend + tb * dm * slope + c * b * slope, ta * dm * slope + c * silu), -1)
        return [
            cot @ gate_up + d_pre @ u[1],
            cot.T @ x + d_pre.T @ u[0],
            dy.T @ cot_dm,
            cot_dm @ down.T + product @ u[2].T,
        ]

    auto = derivatives(lambda *args: swiglu(*args, impl="reference"), [x, gate_up, down])
    ours = expected([product @ down.T], [d_pre @ gate_up, d_pre.T @ x, dy.T @ product], second)
    assert furthest(ours, auto) < EXACT


@settings(max_examples=20, deadline=None)
# At the clip itself rounding decides the side, and the slopes of the two sides differ.
@given(st.floats(0.05, 5).filter(lambda size: abs(size - 1) > 1e-9), st.integers(0, 99), st.sampled_from([0.0, 0.3]))
def test_first_derivative_through_the_clip(size: float, seed: int, decay: float) -> None:
    shapes = [(4, 3), (2, 5)]
    weights, grads, anchors = leaves(seed, *shapes), leaves(seed + 1, *shapes), leaves(seed + 2, *shapes)
    norm = torch.stack([g.square().sum() for g in grads]).sum().sqrt().detach()
    grads = [(g.detach() / norm * size).requires_grad_() for g in grads]
    rates = torch.tensor([0.5, 2.0], dtype=torch.float64, requires_grad=True)
    step = inner_update(weights, grads, rates, clip=1.0, decay=decay, anchors=anchors, impl="reference")
    v = random_like(weights, 5)
    inputs = [*weights, *grads, rates, *(anchors if decay else [])]
    along = torch.stack([(one * w).sum() for one, w in zip(v, step.weights, strict=True)]).sum()
    auto = torch.autograd.grad(along + 0.7 * step.norm, inputs)
    clipped = size >= 1
    factor = 1 / size if clipped else 1.0
    dots = torch.stack([(g * one).sum() for g, one in zip(grads, v, strict=True)])
    pull = float((rates * dots).sum().detach()) / size**3 if clipped else 0.0
    ours = [(1 - decay) * one for one in v]
    ours += [-r * factor * one + (pull + 0.7 / size) * g for r, one, g in zip(rates, v, grads, strict=True)]
    ours += [-factor * dots, *([decay * one for one in v] if decay else [])]
    assert furthest([t.detach() for t in ours], auto) < EXACT
