"""What there is to compile and to measure of the dynamic SwiGLU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kernels.registry import BenchmarkCase, CompileCase
from ttt_kernels.swiglu.api import swiglu, swiglu_many


def compile_cases() -> Iterator[CompileCase]:
    """One sequence's kernels at 64 and 1024 rows, and those of many tenants."""
    from ttt_kernels.swiglu.impl import many_triton, triton

    width, inner = 768, 2048

    def one(dtype: torch.dtype, rows: int) -> None:
        x, gate_up = torch.zeros(rows, width, dtype=dtype), torch.zeros(2 * inner, width, dtype=dtype)
        product = torch.zeros(rows, inner, dtype=dtype)
        pre = torch.zeros(rows, 2 * inner, dtype=dtype)
        triton.gated(x, gate_up, keep=True)
        triton.gated(x, gate_up, keep=False)
        triton.first_derivative(pre, product)
        triton.second_derivative(pre, product, torch.zeros_like(pre), torch.zeros_like(product))

    def many(dtype: torch.dtype) -> None:
        table = torch.zeros(2, 3, dtype=torch.int64)
        many_triton.run_tiles(torch.zeros(2, width, dtype=dtype), table, table[:, :2].contiguous(), inner)

    for dtype in (torch.bfloat16, torch.float32):
        name, low = str(dtype).removeprefix("torch."), dtype == torch.bfloat16
        for rows in (64, 1024):
            tensor_core = frozenset({"_gated_kernel"}) if low else frozenset[str]()
            yield CompileCase(f"swiglu/{name}/rows{rows}", partial(one, dtype, rows), tensor_core)
        yield CompileCase(f"swiglu/{name}/many", partial(many, dtype))


def benchmark_cases() -> Iterator[BenchmarkCase]:
    """One mini-batch of a sequence, and a decode step of several tenants against a loop over them."""
    shapes = {"cpu": (256, 576, 768)}
    tenants = [1, 8]
    if torch.cuda.is_available():
        shapes = {"125M": (1024, 768, 2048), "760M": (1024, 1536, 4096)}
        tenants = [1, 8, 64]
    for name, (rows, width, inner) in shapes.items():
        for order in range(3):
            yield BenchmarkCase(
                f"swiglu/{name}/order{order}",
                order,
                partial(_inputs, rows, width, inner),
                {impl: partial(swiglu, impl=impl) for impl in ("reference", "triton")},
                _naive,
            )
        for count in tenants:
            yield BenchmarkCase(
                f"swiglu/{name}/decode{count}",
                0,
                partial(_tenants, count, width, inner),
                {impl: _many(impl) for impl in ("reference", "triton")},
                _loop,
            )


def _inputs(rows: int, width: int, inner: int, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    x = torch.randn(rows, width, device=device, dtype=dtype, requires_grad=True)
    gate_up = torch.randn(2 * inner, width, device=device, dtype=dtype).div_(width**0.5).requires_grad_()
    down = torch.randn(width, inner, device=device, dtype=dtype).div_(inner**0.5).requires_grad_()
    return x, gate_up, down


def _tenants(count: int, width: int, inner: int, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
    """One row per tenant, then every tenant's gate_up, then every tenant's down."""
    x = torch.randn(count, width, device=device, dtype=dtype)
    gate_up = [torch.randn(2 * inner, width, device=device, dtype=dtype) / width**0.5 for _ in range(count)]
    return x, *gate_up, *(torch.randn(width, inner, device=device, dtype=dtype) / inner**0.5 for _ in range(count))


def _many(impl: str) -> Callable[..., Tensor]:
    def run(x: Tensor, *weights: Tensor) -> Tensor:
        count = len(x)
        return swiglu_many(x, [1] * count, weights[:count], weights[count:], impl=impl)

    return run


def _loop(x: Tensor, *weights: Tensor) -> Tensor:
    count = len(x)
    rows = zip(torch.split(x, 1), weights[:count], weights[count:], strict=True)
    return torch.cat([_naive(row, gate_up, down) for row, gate_up, down in rows])


def _naive(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    inner = down.shape[1]
    return (F.silu(x @ gate_up[:inner].T) * (x @ gate_up[inner:].T)) @ down.T
