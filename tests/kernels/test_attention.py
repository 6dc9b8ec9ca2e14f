"""Attention: the reference against a written-out restatement, its derivatives, and the flash path against it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from ttt_kernels.attention import KeyValues, Rope, attention, rotate


def tables(length: int, width: int, *, interleaved: bool = False) -> Rope:
    frequencies = 100.0 ** -(torch.arange(0, width, 2, dtype=torch.float64) / width)
    angles = torch.arange(length)[:, None] * frequencies
    return Rope(angles.cos(), angles.sin(), interleaved)


def turned(x: Tensor, position: int, rope: Rope) -> Tensor:
    """One vector [D], turned pair by pair."""
    out, half = torch.empty_like(x), len(x) // 2
    for j in range(half):
        a, b = (2 * j, 2 * j + 1) if rope.interleaved else (j, j + half)
        c, s = rope.cos[position, j], rope.sin[position, j]
        out[a], out[b] = x[a] * c - x[b] * s, x[a] * s + x[b] * c
    return out


def by_hand(q: Tensor, k: Tensor, v: Tensor, window: int | None, sinks: int, rope: Rope) -> Tensor:
    """All positions from 0, query by query and key by key: q [Hq, N, D], k, v [Hkv, N, D]."""
    heads, length, width = q.shape
    group, out = heads // k.shape[0], torch.empty_like(q)
    for h in range(heads):
        for p in range(length):
            scores, values = [], []
            for j in range(p + 1):
                distance = p - j
                if window is not None and distance >= window:
                    if j >= sinks:
                        continue
                    distance = window
                near = turned(q[h, p], distance, rope) @ turned(k[h // group, j], 0, rope)
                scores.append(near / math.sqrt(width))
                values.append(v[h // group, j])
            out[h, p] = torch.softmax(torch.stack(scores), 0) @ torch.stack(values)
    return out


def chunked(
    q: Tensor, k: Tensor, v: Tensor, *, sizes: list[int], window: int | None, sinks: int, rope: Rope, impl: str
) -> Tensor:
    """The whole of q, k, v [B, H, N, D] in chunks, with a cache of `window` rows."""
    outs, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        oldest = 0 if window is None else max(0, start - window)
        prefix = KeyValues(k[:, :, oldest:start], v[:, :, oldest:start])
        known = min(sinks, start + size)
        outs.append(
            attention(
                q[:, :, rows],
                k[:, :, rows],
                v[:, :, rows],
                window=window,
                start=start,
                prefix=prefix if start else None,
                sinks=KeyValues(k[:, :, :known], v[:, :, :known]) if sinks else None,
                rope=rope,
                impl=impl,
            )
        )
        start += size
    return torch.cat(outs, dim=2)


shapes = st.fixed_dictionaries(
    {
        "length": st.integers(1, 24),
        "window": st.one_of(st.none(), st.integers(5, 12)),
        "sinks": st.integers(0, 4),
        "groups": st.sampled_from([(1, 1), (2, 1), (4, 2), (3, 3), (8, 1)]),
        "width": st.sampled_from([4, 6, 10]),
        "interleaved": st.booleans(),
        "seed": st.integers(0, 1000),
        "cut": st.integers(1, 24),
    }
)


def draw(case: dict[str, object], dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor, Rope]:
    generator = torch.Generator().manual_seed(case["seed"])  # type: ignore[arg-type]
    (heads, kv), n, d = case["groups"], case["length"], case["width"]  # type: ignore[misc]
    q, k, v = (torch.randn(2, h, n, d, generator=generator, dtype=torch.float64).to(dtype) for h in (heads, kv, kv))
    return q, k, v, tables(64, d, interleaved=case["interleaved"])  # type: ignore[arg-type]


def pieces(length: int, cut: int) -> list[int]:
    return [min(cut, length - first) for first in range(0, length, cut)]


@settings(max_examples=25, deadline=None)
@given(shapes)
def test_reference_is_the_definition(case: dict) -> None:
    q, k, v, rope = draw(case)
    ours = chunked(
        q,
        k,
        v,
        sizes=pieces(case["length"], case["cut"]),
        window=case["window"],
        sinks=case["sinks"],
        rope=rope,
        impl="reference",
    )
    hand = by_hand(q[1], k[1], v[1], case["window"], case["sinks"], rope)
    assert (ours[1] - hand).abs().max() < 1e-12


@settings(max_examples=40, deadline=None)
@given(shapes)
def test_flash_equals_the_reference_with_every_gradient(case: dict) -> None:
    q, k, v, rope = draw(case)
    leaves = [t.requires_grad_() for t in (q, k, v)]
    cotangent = torch.randn(q.shape, dtype=q.dtype, generator=torch.Generator().manual_seed(1))
    results = []
    for impl in ("reference", "flash"):
        out = chunked(
            q,
            k,
            v,
            sizes=pieces(case["length"], case["cut"]),
            window=case["window"],
            sinks=case["sinks"],
            rope=rope,
            impl=impl,
        )
        results.append((out, *torch.autograd.grad(out, leaves, cotangent)))
    for name, ours, theirs in zip(("out", "dq", "dk", "dv"), results[1], results[0], strict=True):
        assert (ours - theirs).abs().max() < 1e-9, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("shape", [(1, 9, 37, 64), (2, 3, 5, 10), (1, 1, 1, 2), (1, 2, 300, 96)], ids=str)
def test_rotation_has_the_same_bits_with_and_without_a_graph(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x, rope = torch.randn(shape).to(dtype), tables(shape[2], shape[3])
    for rows in (x, x.transpose(0, 1), x.expand(2, *shape[1:]) if shape[0] == 1 else x):
        graph = rotate(rows, rope.cos, rope.sin, interleaved=False)
        with torch.no_grad():
            assert torch.equal(rotate(rows, rope.cos, rope.sin, interleaved=False), graph)


def test_flash_in_bf16_is_as_near_as_bf16_allows() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, 700, 64) for h in (9, 3, 3))
    options = {"sizes": [512, 188], "window": 256, "sinks": 4, "rope": tables(700, 64)}
    exact = chunked(q, k, v, impl="reference", **options)
    low = [t.bfloat16() for t in (q, k, v)]
    flash = (chunked(*low, impl="flash", **options).float() - exact).abs().mean()
    plain = (chunked(*low, impl="reference", **options).float() - exact).abs().mean()
    assert flash < 2 * plain


def test_first_and_second_derivatives_of_the_reference() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, h, 3, 4, dtype=torch.float64, requires_grad=True) for h in (2, 1, 1))
    prefix = [torch.randn(1, 1, 6, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    sinks = [torch.randn(1, 1, 2, 4, dtype=torch.float64, requires_grad=True) for _ in range(2)]

    def run(*args: Tensor) -> Tensor:
        q, k, v, pk, pv, sk, sv = args
        return attention(
            q, k, v, window=5, start=8, prefix=KeyValues(pk, pv), sinks=KeyValues(sk, sv), rope=tables(16, 4)
        )

    inputs = (q, k, v, *prefix, *sinks)
    assert torch.autograd.gradcheck(run, inputs)
    assert torch.autograd.gradgradcheck(run, inputs)


def test_flash_refuses_a_second_derivative() -> None:
    q, k, v = (torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    out = attention(q, k, v, window=2, impl="flash")
    with pytest.raises(RuntimeError, match="differentiated once only"):
        torch.autograd.grad(out.sum(), q, create_graph=True)


def test_one_start_per_sequence_equals_one_sequence_at_a_time() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, h, 3, 8, dtype=torch.float64) for h in (4, 2, 2))
    prefix, sinks = (KeyValues(*torch.randn(2, 2, 2, n, 8, dtype=torch.float64)) for n in (6, 2))
    rope = tables(64, 8)
    together = attention(q, k, v, window=6, start=torch.tensor([4, 30]), prefix=prefix, sinks=sinks, rope=rope)
    for row, start in enumerate((4, 30)):
        one = slice(row, row + 1)
        alone = attention(
            q[one],
            k[one],
            v[one],
            window=6,
            start=start,
            prefix=KeyValues(prefix.k[one], prefix.v[one]),
            sinks=KeyValues(sinks.k[one], sinks.v[one]),
            rope=rope,
        )
        assert (together[one] - alone).abs().max() < 1e-12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"impl": "fast"}, "unknown impl 'fast'; valid: 'auto', 'reference', 'flash', 'triton'"),
        ({"q": torch.zeros(1, 2, 3)}, "q has shape"),
        ({"q": torch.zeros(1, 2, 3, 4, dtype=torch.int64)}, "q has dtype"),
        ({"k": torch.zeros(1, 3, 3, 4)}, "k has shape"),
        ({"v": torch.zeros(1, 2, 3, 5)}, "v has shape"),
        ({"k": torch.zeros(1, 2, 3, 4).half()}, "k is torch.float16"),
        ({"window": 0}, "window is 0"),
        ({"window": 2.5}, "window is 2.5, expected a number of keys"),
        ({"k": torch.zeros(1, 2, 3, 4, device="meta")}, "k is torch.float32 on meta, expected torch.float32 on cpu"),
        ({"start": torch.tensor([0.0])}, "start has dtype torch.float32"),
        ({"start": -1}, "start is -1"),
        ({"start": torch.tensor([0, 1])}, "start has shape"),
        ({"prefix": KeyValues(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4))}, r"prefix\.k has shape"),
        ({"sinks": KeyValues(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 2, 4))}, r"sinks\.v has shape"),
        ({"rope": tables(2, 4)}, r"rope\.cos has shape"),
        ({"rope": tables(4, 4), "start": torch.tensor([3])}, r"rope\.cos has shape \[4, 2\], expected at least 6"),
        ({"start": torch.tensor([-2])}, "start has -2 in it"),
        ({"rope": tables(8, 6)}, r"rope\.cos has shape"),
    ],
)
def test_a_bad_argument_is_named(change: dict, message: str) -> None:
    good = {name: torch.zeros(1, 2, 3, 4) for name in "qkv"}
    with pytest.raises(ValueError, match=message):
        attention(**{**good, **change})
