"""Cross-entropy, SwiGLU and inner update on the GPU: values and both orders, against float64 and PyTorch's rounding.

A result passes when its largest error is at most twice that of the plain PyTorch reference in the same precision.
Run: PYTHONPATH=.:kernels:training:adapters python gpu/operations_correctness.py
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from jobs import Job
from torch import Tensor
from ttt_kernels.cross_entropy import linear_cross_entropy
from ttt_kernels.inner_update import inner_update
from ttt_kernels.swiglu import swiglu, swiglu_many

Run = Callable[..., Tensor]

FLOOR = {torch.float32: 2e-5, torch.float16: 1e-3, torch.bfloat16: 4e-3}
"""Relative error that always passes: one rounding of a result, or fp32 sums in another order."""

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def leaves(dtype: torch.dtype, *shapes: tuple[int, ...]) -> list[Tensor]:
    """Normal numbers scaled by the last dimension's root."""
    return [(torch.randn(s, device=DEVICE) / s[-1] ** 0.5).to(dtype).requires_grad_() for s in shapes]


def all_derivatives(run: Run, inputs: Sequence[Tensor]) -> list[Tensor]:
    """Output, first-order gradients, and the gradients of a random combination of those."""
    generator = torch.Generator(DEVICE).manual_seed(1)

    def direction(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, device=DEVICE).to(like.dtype)

    out = run(*inputs)
    cotangent = direction(out).requires_grad_()
    first = torch.autograd.grad(out, inputs, cotangent, create_graph=True)
    along = torch.stack([(g * direction(g)).float().sum() for g in first]).sum()
    second = torch.autograd.grad(along, [*inputs, cotangent], allow_unused=True)
    return [t.detach() for t in (out, *first, *(g for g in second if g is not None))]


def error(ours: Tensor, exact: Tensor) -> float:
    """Largest difference relative to the largest entry."""
    return float((ours.double() - exact.double()).abs().max() / exact.double().abs().max().clamp_min(1e-30))


def check(run: Callable[[str], Run], inputs: list[Tensor], dtype: torch.dtype) -> dict[str, Any]:
    """The worst tensor of one case, beside the reference's error on it."""
    exact = all_derivatives(run("reference"), [t.detach().double().requires_grad_() for t in inputs])
    ours, theirs = all_derivatives(run("triton"), inputs), all_derivatives(run("reference"), inputs)
    errors = [(error(o, e), error(t, e)) for o, t, e in zip(ours, theirs, exact, strict=True)]
    worst = max(errors, key=lambda pair: pair[0] / max(FLOOR[dtype], pair[1]))
    passed = all(o <= max(FLOOR[dtype], 2 * t) for o, t in errors)
    return {"error": worst[0], "reference_error": worst[1], "passed": passed}


def cross_entropy(rows: int, width: int, vocabulary: int, elements: int, dtype: torch.dtype) -> dict[str, Any]:
    """`elements` logits at a time, so that a small case too has several blocks of rows."""
    from ttt_kernels.cross_entropy.impl import triton

    targets = torch.randint(vocabulary, (rows,), device=DEVICE)
    before, triton.ELEMENTS = triton.ELEMENTS, elements
    try:
        return check(
            lambda impl: lambda h, w: linear_cross_entropy(h, w, targets, impl=impl),
            leaves(dtype, (rows, width), (vocabulary, width)),
            dtype,
        )
    finally:
        triton.ELEMENTS = before


def one_sequence(rows: int, width: int, inner: int, dtype: torch.dtype) -> dict[str, Any]:
    """Training and prefill."""
    inputs = leaves(dtype, (rows, width), (2 * inner, width), (width, inner))
    return check(lambda impl: partial(swiglu, impl=impl), inputs, dtype)


def many_tenants(counts: list[int], width: int, inner: int, dtype: torch.dtype) -> dict[str, Any]:
    """Decode: against float64, and bit for bit against one tenant at a time."""
    each = len(counts)
    x, *weights = leaves(dtype, (sum(counts), width), *[(2 * inner, width)] * each, *[(width, inner)] * each)
    x, weights = x.detach(), [w.detach() for w in weights]
    up, low = weights[:each], weights[each:]
    exact = swiglu_many(x.double(), counts, [t.double() for t in up], [t.double() for t in low], impl="reference")
    ours, theirs = (swiglu_many(x, counts, up, low, impl=impl) for impl in ("triton", "reference"))
    parts = zip(torch.split(x, counts), up, low, strict=True)
    alone = torch.cat([swiglu_many(part, [len(part)], [u], [d], impl="triton") for part, u, d in parts])
    own, other = error(ours, exact), error(theirs, exact)
    same = torch.equal(alone, ours)
    passed = same and own <= max(FLOOR[dtype], 2 * other)
    return {"error": own, "reference_error": other, "same_bits_alone": same, "passed": passed}


def write(rule: str, width: int, inner: int, dtype: torch.dtype) -> dict[str, Any]:
    """The inner update with a clip; gradients in `dtype`, masters in fp32; in place twice, for the same bits."""
    shapes = [(inner, width), (inner, width), (width, inner)] * 2
    count = len(shapes)
    weights, grads = leaves(torch.float32, *shapes), leaves(dtype, *shapes)
    rates = torch.linspace(0.5, 1.5, count, device=DEVICE).requires_grad_()

    def run(impl: str) -> Run:
        def step(*tensors: Tensor) -> Tensor:
            after = inner_update(tensors[:count], tensors[count:-1], tensors[-1], rule=rule, clip=1.0, impl=impl)
            return torch.cat([after.norm[None], *(w.flatten() for w in after.weights)])

        return step

    found = check(run, [*weights, *grads, rates], dtype)
    twice = []
    for _ in range(2):
        own = [w.detach().clone() for w in weights]
        inner_update(own, [g.detach() for g in grads], rates.detach(), rule=rule, impl="triton_in_place")
        twice.append(own)
    same = all(torch.equal(a, b) for a, b in zip(*twice, strict=True))
    return {**found, "same_bits_twice": same, "passed": found["passed"] and same}


def main() -> None:
    """Shapes of the 125M and 760M models, and odd ones."""
    torch.manual_seed(0)
    job = Job("operations_correctness", __doc__)
    small = job.options.small
    dtypes = (torch.float16, torch.float32) if small else (torch.bfloat16, torch.float16, torch.float32)
    heads = [(77, 96, 99, 1 << 10)] if small else [(1024, 768, 128256, 1 << 27), (77, 96, 4999, 1 << 16)]
    mlps = [(33, 24, 20)] if small else [(1024, 768, 2048), (1024, 1536, 4096), (33, 80, 72), (1, 64, 48)]
    batches = [[1], [1, 0, 33, 16, 2]] if small else [[1], [1] * 8, [1] * 64, [1, 0, 33, 16, 2]]
    width, inner = (24, 20) if small else (768, 2048)
    for dtype in dtypes:
        name = str(dtype).removeprefix("torch.")
        for head in heads:
            job.run(f"cross_entropy {head} {name}", partial(cross_entropy, *head, dtype))
        for mlp in mlps:
            job.run(f"swiglu {mlp} {name}", partial(one_sequence, *mlp, dtype))
        for counts in batches:
            label = counts if len(counts) < 8 else f"{len(counts)} tenants"
            job.run(f"swiglu_many {label} {name}", partial(many_tenants, counts, width, inner, dtype))
        for rule in ("sgd", "muon"):
            job.run(f"inner_update {rule} {name}", partial(write, rule, width, inner, dtype))
    job.finish(("error", "reference_error", "passed"))


if __name__ == "__main__":
    main()
