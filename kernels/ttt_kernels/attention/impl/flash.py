"""CPU path for reading and the inner step: PyTorch's flash attention for the window, the few sinks merged by hand.

Softmax over window and sinks together is the window's own result reweighted through its log-sum-exp. In the backward
pass the same flash kernel, given the *merged* output and log-sum-exp, yields exactly the window's share of the
gradient. First derivative only: a second one is an error, not a silent zero.

The query heads that share a key/value head are laid end to end, as more queries.

Legend: R = batch x key/value heads, G query heads per key/value head, T queries, N window keys, S sinks, D head width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ttt_kernels.attention.rotation import rotate
from ttt_kernels.attention.types import KeyValues, Rope
from ttt_kernels.first_order import first_order_only
from ttt_kernels.precision import compute_dtype

_flash_forward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
_flash_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward.default

QUERY_BLOCK = 512
"""Queries per call: bounds the mask and the share of keys outside the window."""


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None,
    start: int | Tensor,
    prefix: KeyValues | None,
    sinks: KeyValues | None,
    rope: Rope | None,
    scale: float,
) -> Tensor:
    """See `ttt_kernels.attention.attention`."""
    if isinstance(start, Tensor):
        raise ValueError(  # noqa: TRY004 (this repository names a bad argument with ValueError)
            f"start is a tensor of shape {list(start.shape)}, expected an int for impl='flash'"
        )
    if q.device.type != "cpu":
        raise ValueError(f"q is on {q.device}, expected cpu for impl='flash'")
    length = q.shape[2]
    q_turned, sink_count = _turn(q, start, rope), 0 if sinks is None else sinks.k.shape[2]
    if prefix is not None:
        held = min(prefix.k.shape[2], start)
        kept = prefix.k.shape[2] - held
        k, v = torch.cat((prefix.k[:, :, kept:], k), dim=2), torch.cat((prefix.v[:, :, kept:], v), dim=2)
    first = start + length - k.shape[2]  # position of the first key
    k = _turn(k, first, rope)

    parts, begin = [], start
    while begin < start + length:
        end = min(begin + QUERY_BLOCK, start + length)
        if window is not None and begin < window < end:
            end = window  # before the window slides, sinks are ordinary keys; afterwards they are a part of their own
        slid = window is not None and end > window and sink_count > 0
        oldest = first if window is None else max(first, begin - window + 1)
        keys = slice(oldest - first, end - first)
        queries = slice(begin - start, end - start)
        sink_scores = sink_v = None
        if slid and sinks is not None and window is not None:
            sink_scores = _sink_scores(q[:, :, queries], q_turned[:, :, queries], sinks.k, begin, window, rope, scale)
            sink_v = sinks.v.flatten(0, 1)
        near_k, near_v = (x[:, :, keys].flatten(0, 1) for x in (k, v))
        group = q.shape[1] // k.shape[1]
        mask = _mask(end - begin, end - oldest, group, window, max(0, sink_count - oldest) if slid else 0, q.dtype)
        part = q_turned[:, :, queries]
        out: Tensor = _Attend.apply(  # type: ignore[no-untyped-call]
            _grouped(part, k), near_k, near_v, sink_scores, sink_v, mask, scale
        )
        parts.append(out.reshape(part.shape))
        begin = end
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _turn(x: Tensor, first: int, rope: Rope | None) -> Tensor:
    """Rotates [B, H, N, D] at positions first, first + 1, ..."""
    if rope is None:
        return x
    rows = slice(first, first + x.shape[2])
    return rotate(x, rope.cos[rows], rope.sin[rows], interleaved=rope.interleaved)


def _sink_scores(
    q: Tensor, q_turned: Tensor, sink_k: Tensor, begin: int, window: int, rope: Rope | None, scale: float
) -> Tensor:
    """Scaled scores [R, G * T, S] of the sinks, which stand at distance min(p - s, window)."""
    count = sink_k.shape[2]
    # Where every sink has left the window all stand at one distance: q turned by it serves them all.
    scores = _grouped(_turn_to(q, window, rope), sink_k) @ sink_k.flatten(0, 1).transpose(-1, -2)
    if begin < window + count - 1:
        near = _grouped(q_turned, sink_k) @ _turn(sink_k, 0, rope).flatten(0, 1).transpose(-1, -2)
        at = torch.arange(begin, begin + q.shape[2]).repeat(q.shape[1] // sink_k.shape[1])
        scores = torch.where(at[:, None] - torch.arange(count) < window, near, scores)
    return scores.to(compute_dtype(q.dtype)) * scale


def _grouped(q: Tensor, k: Tensor) -> Tensor:
    """[B, Hq, T, D] as [B * Hkv, G * T, D]: the queries that share a key/value head, one after another."""
    batch, heads, width = k.shape[0], k.shape[1], k.shape[3]
    return q.reshape(batch * heads, -1, width)


def _turn_to(x: Tensor, position: int, rope: Rope | None) -> Tensor:
    """Rotates every row of [B, H, N, D] to one position."""
    if rope is None:
        return x
    rows = slice(position, position + 1)
    return rotate(x, rope.cos[rows], rope.sin[rows], interleaved=rope.interleaved)


@lru_cache(maxsize=8)
def _mask(queries: int, keys: int, group: int, window: int | None, hidden: int, dtype: torch.dtype) -> Tensor | None:
    """Additive mask [G * T, N] where the last query stands at the last key; None where causal masking says the same.

    `hidden` leading keys are sinks that are counted elsewhere.
    """
    if group == 1 and queries == keys and not hidden and (window is None or keys <= window):
        return None
    at = torch.arange(keys - queries, keys)[:, None]
    key = torch.arange(keys)[None]
    visible = (key <= at) & (key >= hidden)
    if window is not None:
        visible &= key > at - window
    mask = torch.zeros(queries, keys, dtype=dtype).masked_fill_(~visible, float("-inf"))
    return torch.cat((mask,) * group)


class _Attend(torch.autograd.Function):
    """Attention of rotated q [R, G * T, D] over k, v [R, N, D] and sinks given by their scores [R, G * T, S]."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        sink_scores: Tensor | None,
        sink_v: Tensor | None,
        mask: Tensor | None,
        scale: float,
    ) -> Tensor:
        out: Tensor
        lse: Tensor
        out, lse = _flash_forward(q[:, None], k[:, None], v[:, None], 0.0, mask is None, attn_mask=mask, scale=scale)
        out, lse, weights = out[:, 0], lse[:, 0], None
        if sink_scores is not None and sink_v is not None:
            total = torch.logaddexp(lse, torch.logsumexp(sink_scores, dim=-1))
            weights = torch.exp(sink_scores - total[..., None])
            share = torch.exp(lse - total)[..., None]
            merged = torch.bmm(weights.to(v.dtype), sink_v).to(share.dtype)
            out, lse = torch.addcmul(merged, out.to(share.dtype), share).to(q.dtype), total
        ctx.save_for_backward(q, k, v, out, lse, weights, sink_v, mask)
        ctx.scale = scale
        return out

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, weights, sink_v, mask = ctx.saved_tensors
        q4, k4, v4, grad4, out4, lse4 = (tensor[:, None] for tensor in (q, k, v, grad, out, lse))
        dq, dk, dv = _flash_backward(grad4, q4, k4, v4, out4, lse4, 0.0, mask is None, attn_mask=mask, scale=ctx.scale)
        d_scores = d_sink_v = None
        if weights is not None:
            precise = weights.dtype
            if ctx.needs_input_grad[3]:
                inner = (grad.to(precise) * out.to(precise)).sum(-1, keepdim=True)
                d_weights = torch.bmm(grad, sink_v.transpose(-1, -2)).to(precise)
                d_scores = weights * (d_weights - inner)
            if ctx.needs_input_grad[4]:
                d_sink_v = torch.bmm(weights.to(v.dtype).transpose(-1, -2), grad)
        return dq[:, 0], dk[:, 0], dv[:, 0], d_scores, d_sink_v, None, None
