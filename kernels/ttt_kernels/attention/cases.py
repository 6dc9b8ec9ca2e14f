"""Attention's cases for the compile check and the benchmarks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
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
    yield CompileCase("attention/quick", _quick, frozenset({"backward_queries_kernel"}))
    yield CompileCase("attention/bf16-d64-one_token_one_head", _one_token)
    for width in (64, 80, 96, 128):
        for on_load in (True, False):
            name = f"attention/bf16-d{width}-{'turned_on_load' if on_load else 'turned_before'}"
            yield CompileCase(name, partial(_launch, width, torch.bfloat16, on_load), TENSOR_CORE)
    yield CompileCase("attention/fp16-d64-turned_on_load", partial(_launch, 64, torch.float16, True), TENSOR_CORE)
    yield CompileCase("attention/fp32-d64-turned_on_load", partial(_launch, 64, torch.float32, True))


def _inputs(width: int, dtype: torch.dtype) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor, Tensor], Geometry]:
    """q, k, v and the prefix, and where they stand."""
    k, v, pk, pv = torch.zeros(4, 1, 2, 64, width, dtype=dtype)
    cos, sin = (torch.zeros(256, width // 2) for _ in range(2))
    at = Geometry(torch.tensor([64]), 64, 0, 1.0, cos, sin, True, True)
    return (torch.zeros(1, 4, 64, width, dtype=dtype), k, v, pk, pv), at


def _launch(width: int, dtype: torch.dtype, on_load: bool) -> None:
    from ttt_kernels.attention.tiles.launch import TritonPasses

    inputs, at = _inputs(width, dtype)
    passes = TritonPasses(turn_on_load=on_load)
    out, lse = passes.forward(*inputs, at)
    passes.backward(inputs, out, lse, out, lse, at, True, True)
    for cotangents in ((*inputs[:3], None, None), inputs):
        passes.double(inputs, out, lse, out, lse, cotangents, at, True)


def _quick() -> None:
    """One kernel alone, to see that compiling works at all."""
    from ttt_kernels.attention.tiles.launch import TritonPasses

    inputs, at = _inputs(64, torch.bfloat16)
    TritonPasses().backward(
        inputs, inputs[0], torch.zeros(1, 4, 64), inputs[0], torch.zeros(1, 4, 64), at, False, False
    )


def _one_token() -> None:
    """Sizes of 1, which Triton takes as constants, with and without a prefix."""
    from ttt_kernels.attention.tiles.launch import TritonPasses

    at = Geometry(torch.tensor([64, 3]), 1 << 30, 4, 1.0, None, None, False, True)
    q, prefix = torch.zeros(2, 1, 1, 64, dtype=torch.bfloat16), torch.zeros(2, 1, 64, 64, dtype=torch.bfloat16)
    for before in (prefix, None):
        inputs = (q, q, q, before, before)
        out, lse = TritonPasses().forward(*inputs, at)
        TritonPasses().backward(inputs, out, lse, out, lse, at, True, before is not None)
        TritonPasses().double(inputs, out, lse, out, lse, inputs, at, before is not None)


def benchmark_cases() -> Iterator[BenchmarkCase]:
    """One chunk against its window, as in reading (forward), the inner step (gradient) and meta-learning (second)."""
    shapes = {"cpu": _Shape(9, 3, 256, 512)}
    if torch.cuda.is_available():
        shapes = {"125M": _Shape(12, 12, 1024, 8192), "gqa4": _Shape(12, 3, 1024, 8192)}
    for name, shape in shapes.items():
        for order in range(3):
            impls = ("reference", "flash", "triton") if order < 2 else ("reference", "triton")
            ours = {impl: partial(shape.windowed, impl=impl) for impl in impls}
            yield BenchmarkCase(
                f"attention/{name}/order{order}", order, partial(shape.inputs, order), ours, shape.naive
            )


@dataclass(frozen=True)
class _Shape:
    """Query heads, key/value heads, queries, and the window that is also the prefix; head width 64."""

    heads: int
    kv: int
    length: int
    window: int

    def inputs(self, order: int, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """q, k, v of the chunk, then k, v of the prefix."""
        generator = torch.Generator().manual_seed(0)
        rows = ((self.heads, self.length), *((self.kv, self.length),) * 2, *((self.kv, self.window),) * 2)
        drawn = (torch.randn(1, *row, 64, generator=generator).to(device, dtype) for row in rows)
        return tuple(x.requires_grad_(order > 0) for x in drawn)

    def rope(self, device: torch.device) -> Rope:
        """Tables for prefix and chunk, adjacent pairs."""
        steps = torch.arange(0, 64, 2, device=device) / 64
        angles = torch.arange(self.window + self.length, device=device)[:, None] * 1e5**-steps
        return Rope(angles.cos(), angles.sin(), True)

    def windowed(self, q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor, *, impl: str) -> Tensor:
        """Our operation."""
        rope, prefix = self.rope(q.device), KeyValues(pk, pv)
        return attention(q, k, v, window=self.window, start=self.window, prefix=prefix, rope=rope, impl=impl)

    def naive(self, q: Tensor, k: Tensor, v: Tensor, pk: Tensor, pv: Tensor) -> Tensor:
        """The same in the calls that a reader would write first."""
        k, v = torch.cat((pk, k), dim=2), torch.cat((pv, v), dim=2)
        k_at = torch.arange(self.window + self.length, device=q.device)
        q_at, rope, group = k_at[self.window :], self.rope(q.device), self.heads // self.kv
        k, v = _paired(rope, k, k_at).repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        hidden = (k_at > q_at[:, None]) | (k_at <= q_at[:, None] - self.window)
        scores = (_paired(rope, q, q_at) @ k.mT) * q.shape[-1] ** -0.5
        precise = torch.promote_types(q.dtype, torch.float32)
        return torch.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1, dtype=precise).to(v.dtype) @ v


def _paired(rope: Rope, x: Tensor, at: Tensor) -> Tensor:
    cos, sin = rope.cos[at], rope.sin[at]
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2).to(x.dtype)
