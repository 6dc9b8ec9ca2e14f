"""CPU path for reading and the inner step: PyTorch's flash attention for the window, the few sinks merged by hand.

Softmax over window and sinks together is the window's own result reweighted through its log-sum-exp. In the backward
pass the same flash kernel, given the *merged* output and log-sum-exp, yields exactly the window's share of the
gradient. First derivative only: a second one is an error, not a silent zero.

Legend: R = batch x key/value heads, G query heads per key/value head, T queries, N window keys, S sinks, D head width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ttt_kernels._checks import compute_dtype
from ttt_kernels._first_order import first_order_only
from ttt_kernels.attention.rotation import rotate
from ttt_kernels.attention.types import KeyValues, Rope

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
        raise ValueError(f"start is a tensor of shape {list(start.shape)}, expected an int for impl='flash'")
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
        mask = _mask(end - begin, end - oldest, window, max(0, sink_count - oldest) if slid else 0, q.dtype)
        parts.append(_attend(q_turned[:, :, queries], k[:, :, keys], v[:, :, keys], sink_scores, sink_v, mask, scale))
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
    """Scaled scores [R, G, T, S] of the sinks, which stand at distance min(p - s, window)."""
    batch, heads, count, width = sink_k.shape
    length = q.shape[2]
    columns = []
    for s in range(count):
        key = _turn(sink_k[:, :, s : s + 1], s, rope)
        if rope is None:
            turned = q
        elif begin >= window + s:
            turned = _turn_to(q, window + s, rope)
        else:
            near = min(window + s - begin, length)
            turned = torch.cat((q_turned[:, :, :near], _turn_to(q[:, :, near:], window + s, rope)), dim=2)
        grouped = turned.reshape(batch * heads, -1, length, width)
        columns.append(torch.matmul(grouped, key.reshape(batch * heads, 1, width, 1)))
    return torch.cat(columns, dim=-1).to(compute_dtype(q.dtype)) * scale


def _turn_to(x: Tensor, position: int, rope: Rope) -> Tensor:
    """Rotates every row of [B, H, N, D] to one position."""
    rows = slice(position, position + 1)
    return rotate(x, rope.cos[rows], rope.sin[rows], interleaved=rope.interleaved)


@lru_cache(maxsize=32)
def _mask(queries: int, keys: int, window: int | None, hidden: int, dtype: torch.dtype) -> Tensor | None:
    """Additive mask [T, N] where the last query stands at the last key; None where plain causal masking says the same.

    `hidden` leading keys are sinks that are counted elsewhere.
    """
    if queries == keys and not hidden and (window is None or keys <= window):
        return None
    at = torch.arange(keys - queries, keys)[:, None]
    key = torch.arange(keys)[None]
    visible = (key <= at) & (key >= hidden)
    if window is not None:
        visible &= key > at - window
    return torch.zeros(queries, keys, dtype=dtype).masked_fill_(~visible, float("-inf"))


def _attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    sink_scores: Tensor | None,
    sink_v: Tensor | None,
    mask: Tensor | None,
    scale: float,
) -> Tensor:
    batch, heads, keys, width = k.shape
    shape = q.shape
    grouped = q.reshape(batch * heads, shape[1] // heads, shape[2], width)
    k, v = k.reshape(batch * heads, keys, width), v.reshape(batch * heads, keys, width)
    out: Tensor = _Attend.apply(grouped, k, v, sink_scores, sink_v, mask, scale)  # type: ignore[no-untyped-call]
    return out.reshape(shape)


class _Attend(torch.autograd.Function):
    """Attention of rotated q [R, G, T, D] over k, v [R, N, D] and sinks given by their scores [R, G, T, S]."""

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
        group = q.shape[1]
        wide_k, wide_v = _widen(k, group), _widen(v, group)
        out, lse = _flash_forward(q, wide_k, wide_v, 0.0, mask is None, attn_mask=mask, scale=scale)
        weights = None
        if sink_scores is not None and sink_v is not None:
            total = torch.logaddexp(lse, torch.logsumexp(sink_scores, dim=-1))
            weights = torch.exp(sink_scores - total[..., None])
            share = torch.exp(lse - total)[..., None]
            merged = torch.matmul(weights.to(v.dtype), sink_v[:, None]).to(share.dtype)
            out, lse = torch.addcmul(merged, out.to(share.dtype), share).to(q.dtype), total
        ctx.save_for_backward(q, k, v, out, lse, weights, sink_v, mask)
        ctx.scale = scale
        return out

    @staticmethod
    @first_order_only
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, out, lse, weights, sink_v, mask = ctx.saved_tensors
        group = q.shape[1]
        wide_k, wide_v = _widen(k, group), _widen(v, group)
        dq, dk, dv = _flash_backward(
            grad, q, wide_k, wide_v, out, lse, 0.0, mask is None, attn_mask=mask, scale=ctx.scale
        )
        d_scores = d_sink_v = None
        if weights is not None:
            precise = weights.dtype
            if ctx.needs_input_grad[3]:
                inner = (grad.to(precise) * out.to(precise)).sum(-1, keepdim=True)
                d_weights = torch.matmul(grad, sink_v[:, None].transpose(-1, -2)).to(precise)
                d_scores = weights * (d_weights - inner)
            if ctx.needs_input_grad[4]:
                d_sink_v = torch.matmul(weights.to(v.dtype).transpose(-1, -2), grad).sum(1)
        return dq, dk.sum(1), dv.sum(1), d_scores, d_sink_v, None, None


def _widen(x: Tensor, group: int) -> Tensor:
    """[R, N, D] seen by every query head of its group, without a copy."""
    return x[:, None].expand(-1, group, -1, -1)
