"""Mean linear cross-entropy with a tangent.

As in `ttt_kernels.cross_entropy`'s chunked path, a slice of the vocabulary at a time with a running maximum; with
p = softmax(z), t = dz the tangent of the logits, the four sums over the vocabulary that both derivatives need are
sum e^z, sum e^z t, sum e^z W and sum e^z t W. Each exponential is taken once. Maths: that README's second order.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from ttt_kernels.first_order import first_order_only
from ttt_kernels.precision import compute_dtype

SLICE = 4096
"""Head rows at a time: the slices of logits and tangents stay in the processor's cache."""


def mean_loss(hidden: Tensor, d_hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """(mean nll, its derivative along d_hidden) of hidden [n, D], head [V, D], targets [n]; fp32 at least."""
    if head.requires_grad:
        return _with_head(hidden, d_hidden, head, targets)
    loss, slope = _MeanLoss.apply(hidden, d_hidden, head, targets)  # type: ignore[no-untyped-call]
    return loss, slope


def _with_head(hidden: Tensor, d_hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    precise = compute_dtype(hidden.dtype)
    logits, tangents = F.linear(torch.stack((hidden, d_hidden)), head).to(precise)
    at = targets[:, None]
    loss = torch.logsumexp(logits, dim=-1) - logits.gather(-1, at)[:, 0]
    slope = (torch.softmax(logits, dim=-1) * tangents).sum(-1) - tangents.gather(-1, at)[:, 0]
    return loss.mean(), slope.mean()


class _MeanLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, d_hidden: Tensor, head: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        precise, rows = compute_dtype(hidden.dtype), len(hidden)
        both = torch.cat((hidden, d_hidden))
        largest = torch.full((rows,), torch.finfo(precise).min, dtype=precise, device=hidden.device)
        total, along = torch.zeros_like(largest), torch.zeros_like(largest)
        mixed = torch.zeros(2 * rows, hidden.shape[1], dtype=precise, device=hidden.device)
        for first in range(0, len(head), SLICE):
            part = head[first : first + SLICE]
            z = F.linear(both, part)
            new = torch.maximum(largest, z[:rows].amax(dim=-1).to(precise))
            shrink, largest = torch.exp(largest - new), new
            weights = z.to(precise, copy=True)
            exponentials, turned = weights[:rows], weights[rows:]
            exponentials.sub_(new[:, None]).exp_()
            turned.mul_(exponentials)
            total.mul_(shrink).add_(exponentials.sum(dim=-1))
            along.mul_(shrink).add_(turned.sum(dim=-1))
            mixed.mul_(torch.cat((shrink, shrink))[:, None]).add_(torch.mm(weights.to(hidden.dtype), part))
        mixed.div_(torch.cat((total, total))[:, None])
        along.div_(total)
        chosen = head[targets]
        loss = largest + total.log() - (hidden.to(precise) * chosen).sum(-1)
        slope = along - (d_hidden.to(precise) * chosen).sum(-1)
        first_order = mixed[:rows] - chosen  # gradient of loss by hidden, and of slope by d_hidden
        second_order = mixed[rows:].addcmul_(mixed[:rows], along[:, None], value=-1)
        ctx.save_for_backward(first_order.to(hidden.dtype), second_order.to(hidden.dtype))
        return loss.mean(), slope.mean()

    @staticmethod
    @first_order_only
    def backward(ctx: Any, u: Tensor, w: Tensor) -> tuple[Tensor | None, ...]:
        first_order, second_order = ctx.saved_tensors
        rows = len(first_order)
        for_hidden = first_order * (u / rows) + second_order * (w / rows)
        dtype = first_order.dtype
        return for_hidden.to(dtype), (first_order * (w / rows)).to(dtype), None, None
