"""Attention's cases for the compile check and the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ttt_kernels.attention.api import attention
from ttt_kernels.attention.tiles.geometry import Geometry
from ttt_kernels.attention.types import KeyValues, Rope
from ttt_kernels.registry import BenchmarkCase, CompileCase

TENSOR_CORE = frozenset(
    {
        "forward_kernel",
        "tangent_kernel",
        "backward_queries_kernel",
        "backward_keys_kernel",
        "double_queries_kernel",
        "double_keys_kernel",
    }
)


def compile_cases() -> Iterator[CompileCase]:
    """Every head width in bf16, with a prefix, GQA and rotation; keys rotated on load, and beforehand."""
    quick = partial(_launch, 64, torch.bfloat16, True, second=False)
    yield CompileCase("attention/quick", quick, TENSOR_CORE & {"forward_kernel", "backward_queries_kernel"})
    for width in (64, 80, 96, 128):
        for on_load in (True, False):
            name = f"attention/bf16-d{width}-{'turned_on_load' if on_load else 'turned_before'}"
            yield CompileCase(name, partial(_launch, width, torch.bfloat16, on_load), TENSOR_CORE)
    yield CompileCase("attention/fp16-d64-turned_on_load", partial(_launch, 64, torch.float16, True), TENSOR_CORE)
    yield CompileCase("attention/fp32-d64-turned_on_load", partial(_launch, 64, torch.float32, True))


def _launch(width: int, dtype: torch.dtype, on_load: bool, second: bool = True) -> None:
    from ttt_kernels.attention.tiles.launch import TritonPasses

    q, k, v, pk, pv = (torch.zeros(1, heads, rows, width, dtype=dtype) for heads, rows in _SHAPES)
    cos, sin = (torch.zeros(256, width // 2) for _ in range(2))
    at = Geometry(torch.tensor([64]), 64, 0, 1.0, cos, sin, True, True)
    passes = TritonPasses(turn_on_load=on_load)
    out, lse = passes.forward(q, k, v, pk, pv, at)
    passes.backward((q, k, v, pk, pv), out, lse, out, lse, at, second, second)
    if not second:
        return
    for cotangents in ((q, k, v, None, None), (q, k, v, pk, pv)):
        passes.double((q, k, v, pk, pv), out, lse, out, lse, cotangents, at, True)


_SHAPES = ((4, 64), (2, 64), (2, 64), (2, 64), (2, 64))


def benchmark_cases() -> Iterator[BenchmarkCase]:
    """One chunk against its window, as in reading (forward), the inner step (gradient) and meta-learning (second)."""
    impls = {0: ("reference", "flash"), 1: ("reference", "flash"), 2: ("reference",)}
    for order, names in impls.items():
        ours = {name: partial(_windowed, impl=name) for name in names}
        yield BenchmarkCase(f"attention/order{order}", order, partial(_inputs, order), ours, _naive)


def _inputs(order: int, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """q [1, 9, 256, 64], k, v [1, 3, 256, 64], prefix [1, 3, 512, 64] twice."""
    generator = torch.Generator().manual_seed(0)
    shapes = ((9, 256), (3, 256), (3, 256), (3, 512), (3, 512))
    return tuple(
        torch.randn(1, *shape, 64, generator=generator).to(device, dtype).requires_grad_(order > 0) for shape in shapes
    )


def _rope(q: Tensor) -> Rope:
    angles = torch.arange(1024)[:, None] * 1e5 ** -(torch.arange(0, 64, 2) / 64)
    return Rope(angles.cos().to(q.device), angles.sin().to(q.device), True)


def _windowed(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, *, impl: str) -> Tensor:
    return attention(q, k, v, window=512, start=512, prefix=KeyValues(pk, pv), rope=_rope(q), impl=impl)


def _naive(q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor) -> Tensor:
    """The same in the calls that a reader would write first."""
    k, v = torch.cat((pk, k), dim=2), torch.cat((pv, v), dim=2)
    q_at, k_at = torch.arange(512, 768, device=q.device), torch.arange(768, device=q.device)
    turned: Callable[[Tensor, Tensor], Tensor] = partial(_paired, _rope(q))
    group = q.shape[1] // k.shape[1]
    k, v = turned(k, k_at).repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    hidden = (k_at > q_at[:, None]) | (k_at <= q_at[:, None] - 512)
    scores = (turned(q, q_at) @ k.mT).float() * q.shape[-1] ** -0.5
    return torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1).to(v.dtype) @ v


def _paired(rope: Rope, x: Tensor, at: Tensor) -> Tensor:
    cos, sin = rope.cos[at], rope.sin[at]
    a, b = x[..., ::2].float(), x[..., 1::2].float()
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
