"""CPU path for steps that never want the head's gradient: a slice of the vocabulary at a time, no matrix of logits.

The softmax is kept as a running maximum, sum and weighted sum of head rows, so that each exponential is taken once and
no more than one slice of logits exists. The gradient of one token's loss is linear in that token's cotangent, so
`p W - W[target]` is made in the forward pass and only scaled in the backward pass. The second derivative takes the
slices once more. Maths: README of the operation.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ttt_kernels.first_order import first_order_only
from ttt_kernels.precision import compute_dtype

SLICE = 4096
"""Head rows at a time: a slice of logits for a mini-batch stays in the processor's cache."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """See `ttt_kernels.cross_entropy.linear_cross_entropy`."""
    if weight.requires_grad and torch.is_grad_enabled():
        raise ValueError("weight requires a gradient, which impl='chunked' never computes; expected impl='reference'")
    if not (hidden.requires_grad and torch.is_grad_enabled()):
        return _loss_alone(hidden, weight, targets)
    nll: Tensor = _Loss.apply(hidden, weight, targets)  # type: ignore[no-untyped-call]
    return nll


def _loss_alone(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """The loss without its gradient: PyTorch's fused log-softmax gives a slice's log-sum-exp in one pass."""
    precise, lse, chosen = compute_dtype(hidden.dtype), None, None
    for first in range(0, weight.shape[0], SLICE):
        logits = F.linear(hidden, weight[first : first + SLICE])
        chosen = _chosen(logits, targets - first, chosen)
        part = logits[:, 0].to(precise) - torch.log_softmax(logits.to(precise), dim=-1)[:, 0]
        lse = part if lse is None else torch.logaddexp(lse, part)
    assert lse is not None
    assert chosen is not None
    return lse - chosen


def _chosen(logits: Tensor, at: Tensor, before: Tensor | None) -> Tensor:
    """Logits of the targets that stand `at` a column of this slice; those `before` for the others."""
    found = logits.gather(-1, at.clamp(0, logits.shape[1] - 1)[:, None])[:, 0].to(compute_dtype(logits.dtype))
    return found if before is None else torch.where((at >= 0) & (at < logits.shape[1]), found, before)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        precise, rows = compute_dtype(hidden.dtype), hidden.shape[0]
        largest = torch.full((rows,), torch.finfo(precise).min, dtype=precise, device=hidden.device)
        total, chosen = torch.zeros_like(largest), torch.zeros_like(largest)
        mixed = torch.zeros(hidden.shape, dtype=precise, device=hidden.device)
        for first in range(0, weight.shape[0], SLICE):
            part = weight[first : first + SLICE]
            logits = F.linear(hidden, part)
            chosen = _chosen(logits, targets - first, chosen)
            new = torch.maximum(largest, logits.amax(dim=-1).to(precise))
            shrink, largest = torch.exp(largest - new), new
            # A copy even where no conversion is needed: it is overwritten.
            weights = logits.to(precise, copy=True).sub_(new[:, None]).exp_()
            total.mul_(shrink).add_(weights.sum(dim=-1))
            mixed.mul_(shrink[:, None]).add_(torch.mm(weights.to(hidden.dtype), part))
        lse = largest + total.log()
        mixed.div_(total[:, None])
        ctx.save_for_backward(hidden, weight, targets, lse, mixed)
        return lse - chosen

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        hidden, weight, targets, lse, mixed = ctx.saved_tensors
        return _Gradient.apply(grad, hidden, weight, targets, lse, mixed), None, None  # type: ignore[no-untyped-call]


class _Gradient(torch.autograd.Function):
    """Gradient [N, D] of the loss by hidden; its backward pass is the loss's second derivative."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, hidden: Tensor, weight: Tensor, targets: Tensor, lse: Tensor, mixed: Tensor
    ) -> Tensor:
        unit = mixed - weight[targets]
        ctx.save_for_backward(grad, hidden, weight, lse, mixed, unit)
        return (unit * grad[:, None]).to(hidden.dtype)

    @staticmethod
    @first_order_only
    def backward(ctx: Any, u: Tensor) -> tuple[Tensor | None, ...]:
        grad, hidden, weight, lse, mixed, unit = ctx.saved_tensors
        d_grad = (unit * u).sum(dim=-1).to(grad.dtype)
        mean = (mixed * u).sum(dim=-1, keepdim=True)
        second = torch.zeros_like(mixed)
        for first in range(0, weight.shape[0], SLICE):
            part = weight[first : first + SLICE]
            p = F.linear(hidden, part).to(lse.dtype, copy=True).sub_(lse[:, None]).exp_()
            p.mul_(F.linear(u, part).to(lse.dtype).sub_(mean))
            second.add_(torch.mm(p.to(hidden.dtype), part))
        return d_grad, second.mul_(grad[:, None]).to(hidden.dtype), None, None, None, None
