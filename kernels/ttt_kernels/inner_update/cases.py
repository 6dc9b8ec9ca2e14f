"""What there is to compile and to measure of the inner update."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from ttt_kernels.inner_update.api import inner_update
from ttt_kernels.registry import BenchmarkCase, CompileCase

_CLIP = 1.0


def compile_cases() -> Iterator[CompileCase]:
    """The norm, and the write with and without an anchor."""
    from ttt_kernels.inner_update.impl import triton

    def launch(dtype: torch.dtype) -> None:
        weights, grads = [torch.zeros(2048, 768)], [torch.zeros(2048, 768, dtype=dtype)]
        rate, norm = torch.ones(1), torch.ones(())
        triton.norm_of(grads)
        for anchor in (None, weights[0]):
            triton.write_one(weights[0], grads[0], weights[0], anchor, rate, norm, 1.0, 0.1, guarded=anchor is None)

    for dtype in (torch.bfloat16, torch.float32):
        yield CompileCase(f"inner_update/{str(dtype).removeprefix('torch.')}", partial(launch, dtype))


def benchmark_cases() -> Iterator[BenchmarkCase]:
    """All dynamic MLPs of a model: three tensors a layer, one clip."""
    shapes = {"cpu": (4, 576, 768)}
    if torch.cuda.is_available():
        shapes = {"125M": (3, 768, 2048), "760M": (6, 1536, 4096)}
    for name, (layers, width, inner) in shapes.items():
        for order in range(2):
            impls = ("reference", "in_place", "triton", "triton_in_place") if not order else ("reference", "triton")
            yield BenchmarkCase(
                f"inner_update/{name}/order{order}",
                order,
                partial(_inputs, layers, width, inner, bool(order)),
                {impl: _ours(impl) for impl in impls},
                _naive,
            )


def _inputs(
    layers: int, width: int, inner: int, differentiable: bool, device: str, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """fp32 weights, then as many gradients."""
    shapes = [shape for _ in range(layers) for shape in ((inner, width), (inner, width), (width, inner))]
    weights = [torch.randn(shape, device=device) for shape in shapes]
    grads = [torch.randn(shape, device=device).to(dtype) for shape in shapes]
    return tuple(tensor.requires_grad_(differentiable) for tensor in (*weights, *grads))


def _ours(impl: str) -> Callable[..., Tensor]:
    def run(*tensors: Tensor) -> Tensor:
        count = len(tensors) // 2
        rates = torch.full((count,), 0.01, device=tensors[0].device)
        after = inner_update(tensors[:count], tensors[count:], rates, clip=_CLIP, impl=impl).weights
        return _sums(after) if tensors[0].requires_grad else after[-1]

    return run


def _naive(*tensors: Tensor) -> Tensor:
    count = len(tensors) // 2
    grads = [grad.float() for grad in tensors[count:]]
    norm = torch.sqrt(torch.stack([(grad * grad).sum() for grad in grads]).sum())
    factor = torch.where(norm >= _CLIP, _CLIP / norm, torch.ones_like(norm))
    after = [weight - 0.01 * (grad * factor) for weight, grad in zip(tensors[:count], grads, strict=True)]
    return _sums(after) if tensors[0].requires_grad else after[-1]


def _sums(after: list[Tensor] | tuple[Tensor, ...]) -> Tensor:
    return torch.stack([weight.square().sum() for weight in after])
