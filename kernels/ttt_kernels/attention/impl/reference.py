"""The specification: materialised scores, any floating dtype, differentiable any number of times.

Legend: B batch, H key/value heads, G query heads per key/value head, T queries, P prefix keys, S sinks, D head width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kernels.attention.rotation import rotate
from ttt_kernels.attention.types import KeyValues, Rope
from ttt_kernels.precision import compute_dtype


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
    batch, q_heads, length, width = q.shape
    heads = k.shape[1]
    if prefix is not None:
        k, v = torch.cat((prefix.k, k), dim=2), torch.cat((prefix.v, v), dim=2)
    held = k.shape[2] - length
    sink_count = 0 if sinks is None else sinks.k.shape[2]

    first = torch.as_tensor(start, device=q.device).reshape(-1, 1)  # [1 or B, 1]
    q_at = first + torch.arange(length, device=q.device)  # [1 or B, T]
    k_at = first - held + torch.arange(k.shape[2], device=q.device)  # [1 or B, P+T]
    visible = (k_at[:, None] <= q_at[:, :, None]) & (k_at[:, None] >= sink_count)
    if window is not None:
        visible &= k_at[:, None] > q_at[:, :, None] - window

    group = q_heads // heads
    q_turned, k_turned = _turn(q, q_at, rope), _turn(k, k_at.clamp(min=0), rope)
    scores = _scores(q_turned, k_turned, visible, heads, scale)
    values = v
    if sinks is not None and sink_count:
        sink_at = torch.arange(sink_count, device=q.device)
        # A sink stands at its own distance until it leaves the window, then stays at the window's far end.
        far = q_at[:, None] if window is None else torch.minimum(q_at[:, None], sink_at[:, None] + window)
        seen = sink_at <= q_at[:, :, None]  # [1 or B, T, S]
        columns = [
            _scores(
                _turn(q, far[:, s] if far.shape[1] > 1 else far[:, 0], rope),
                _turn(sinks.k[:, :, s : s + 1], sink_at[None, s : s + 1], rope),
                seen[:, :, s : s + 1],
                heads,
                scale,
            )
            for s in range(sink_count)
        ]
        scores, values = torch.cat((*columns, scores), dim=-1), torch.cat((sinks.v, v), dim=2)
    weights = torch.softmax(scores, dim=-1).to(v.dtype)
    return torch.matmul(weights, values[:, :, None]).reshape(batch, heads * group, length, width)


def _scores(q: Tensor, k: Tensor, seen: Tensor, heads: int, scale: float) -> Tensor:
    """Scaled products [B, H, G, T, N] in the precision of the softmax; -inf where `seen` [1 or B, T, N] is false."""
    batch, q_heads, length, width = q.shape
    group = q_heads // heads
    grouped, keys = q.reshape(batch * heads, -1, width), k.flatten(0, 1).transpose(-1, -2)
    hidden = torch.zeros((), dtype=q.dtype, device=q.device).where(seen, float("-inf"))
    # The product starts from the mask and scales its own result: two passes over the scores less, in every derivative.
    start = hidden[:, None, None].expand(-1, heads if len(seen) > 1 else 1, group, -1, -1).flatten(2, 3).flatten(0, 1)
    products = torch.baddbmm(start, grouped, keys, alpha=scale)
    return products.view(batch, heads, group, length, -1).to(compute_dtype(q.dtype))


def _turn(x: Tensor, positions: Tensor, rope: Rope | None) -> Tensor:
    """Rotates [B, H, N, D] to `positions` [1 or B, N]."""
    if rope is None:
        return x
    return rotate(x, rope.cos[positions][:, None], rope.sin[positions][:, None], interleaved=rope.interleaved)
