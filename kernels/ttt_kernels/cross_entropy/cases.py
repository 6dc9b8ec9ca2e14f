"""What there is to compile and to measure of linear cross-entropy."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kernels.cross_entropy.api import linear_cross_entropy
from ttt_kernels.registry import BenchmarkCase, CompileCase


def compile_cases() -> Iterator[CompileCase]:
    """Softmax, gradient and second derivative over a row of logits, in the dtypes of training."""
    from ttt_kernels.cross_entropy.impl import triton

    def launch(dtype: torch.dtype) -> None:
        z, t = (torch.zeros(2, 49152, dtype=dtype) for _ in range(2))
        targets, lse, grad, out = torch.zeros(2, dtype=torch.int64), *(torch.zeros(2) for _ in range(3))
        triton.loss_rows(z, targets, out, lse)
        triton.gradient_rows(z, targets, lse, None)
        triton.gradient_rows(z, targets, lse, grad)
        triton.second_rows(z, t, targets, lse, grad, out)

    for dtype in (torch.bfloat16, torch.float32):
        yield CompileCase(f"cross_entropy/{str(dtype).removeprefix('torch.')}", partial(launch, dtype))


def benchmark_cases() -> Iterator[BenchmarkCase]:
    """One mini-batch against a head, SmolLM2's on a CPU; on a GPU at the 125M and 760M shapes."""

    def inputs(rows: int, width: int, vocabulary: int, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        hidden = torch.randn(rows, width, device=device, dtype=dtype, requires_grad=True)
        weight = torch.randn(vocabulary, width, device=device, dtype=dtype) / width**0.5
        return hidden, weight, torch.randint(vocabulary, (rows,), device=device)

    shapes = {"cpu": (512, 576, 49152)}
    if torch.cuda.is_available():
        shapes = {"125M": (1024, 768, 128256), "760M": (1024, 1536, 128256)}
    for name, shape in shapes.items():
        for order in range(3):
            yield BenchmarkCase(
                f"cross_entropy/{name}/order{order}",
                order,
                partial(inputs, *shape),
                {impl: partial(linear_cross_entropy, impl=impl) for impl in ("reference", "chunked", "triton")},
                _naive,
            )


def _naive(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy((hidden @ weight.T).float(), targets, reduction="none")
