"""All values, first and second derivatives of an operation, and how far two lists of them are apart."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def random_like(tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype) for t in tensors]


def derivatives(run: Callable[..., Tensor], inputs: Sequence[Tensor], seed: int = 1) -> list[Tensor]:
    """Output; gradients for a random cotangent; for each gradient alone and for all, its gradients in turn.

    The cotangent of the output counts as one of the inputs. A missing gradient is given as zeros.
    """
    out = run(*inputs)
    cotangent = random_like([out], seed)[0].requires_grad_()
    first = torch.autograd.grad(out, inputs, cotangent, create_graph=True)
    directions = random_like(first, seed + 1)
    result = [out, *first]
    every = [*inputs, cotangent]
    for chosen in [[i] for i in range(len(first))] + [list(range(len(first)))]:
        along = torch.stack([(first[i] * directions[i]).sum() for i in chosen]).sum()
        second = torch.autograd.grad(along, every, retain_graph=True, allow_unused=True)
        result += [torch.zeros_like(x) if g is None else g for g, x in zip(second, every, strict=True)]
    return [tensor.detach() for tensor in result]


def furthest(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> float:
    """Largest difference, relative to the largest entry of `theirs` (at least 1); NaN counts as infinite."""
    worst = 0.0
    for mine, other in zip(ours, theirs, strict=True):
        if not mine.numel():
            continue
        scale = max(1.0, float(other.detach().double().abs().max()))
        difference = float((mine.detach().double() - other.detach().double()).abs().max()) / scale
        worst = max(worst, float("inf") if math.isnan(difference) else difference)
    return worst
