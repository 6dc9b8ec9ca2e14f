"""Path of the inner step: a few rows of logits at a time, the gradient of `hidden` computed with the loss.

The gradient of one row's loss is linear in that row's cotangent, so `(p - y) W` is made in the forward pass, while the
row's logits are at hand, and only scaled in the backward pass. Never a gradient of the head; first derivative only.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ttt_kernels._checks import compute_dtype
from ttt_kernels._first_order import first_order_only

ROWS = 64
"""Tokens per block of logits: a block stays in the processor's cache."""


def linear_cross_entropy(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """See `ttt_kernels.cross_entropy.linear_cross_entropy`."""
    if weight.requires_grad and torch.is_grad_enabled():
        raise ValueError("weight requires a gradient, which impl='chunked' never computes; expected impl='reference'")
    needed = hidden.requires_grad and torch.is_grad_enabled()
    nll: Tensor = _LinearCrossEntropy.apply(hidden, weight, targets, needed)  # type: ignore[no-untyped-call]
    return nll


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, needed: bool) -> Tensor:
        nll = torch.empty(hidden.shape[0], dtype=compute_dtype(hidden.dtype), device=hidden.device)
        unit = torch.empty_like(hidden) if needed else None
        for first in range(0, hidden.shape[0], ROWS):
            rows = slice(first, first + ROWS)
            logits = torch.nn.functional.linear(hidden[rows], weight)
            wanted = targets[rows, None]
            chosen = logits.gather(-1, wanted)[:, 0].to(nll.dtype)
            precise = logits.to(nll.dtype)
            total = torch.logsumexp(precise, dim=-1)
            torch.sub(total, chosen, out=nll[rows])
            if unit is not None:
                p = precise.sub_(total[:, None]).exp_()
                p.scatter_add_(-1, wanted, torch.full_like(chosen, -1.0)[:, None])
                torch.mm(p.to(hidden.dtype), weight, out=unit[rows])
        ctx.save_for_backward(unit)
        return nll

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (unit,) = ctx.saved_tensors
        return (unit * grad[:, None]).to(unit.dtype), None, None, None
