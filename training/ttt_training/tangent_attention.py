"""Attention with a tangent on the CPU: tiles of scores per key/value head and block of queries, differentiable once.

With S the scaled scores, P = softmax(S), dS the tangent of S, m = rowsum(P dS), E = dS - m:
out = P V, d_out = (P E) V + P dV. For cotangents a, b of these, R = b V', F = R - rowsum(P R), X = a V' + b dV' + F E:
cot_dS = P F, cot_S = P (X - rowsum(P X)), cot_V = P' a + (P E)' b, cot_dV = P' b; queries and keys follow from
S = Q K', dS = dQ K' + Q dK'. (Row constants of X drop out, among them m's share.)
Semantics: README of `ttt_kernels.attention`.

Legend: H query heads, K key/value heads, G = H / K, n queries, N keys (the last n are the queries' own), d width.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from ttt_kernels.attention import KeyValues, Rope, rotate
from ttt_kernels.first_order import first_order_only
from ttt_kernels.precision import compute_dtype

QUERIES = 128
"""Queries per tile: few enough that it stays in cache and that little of it lies outside the window."""

Pair = tuple[Tensor, Tensor]
"""A value and its tangent."""


def attend(
    q: Pair, k: Pair, v: Pair, prefix: KeyValues, sinks: KeyValues, *, window: int | None, start: int, rope: Rope
) -> Pair:
    """Output and tangent [1, H, n, d] of q [1, H, n, d], k, v [1, K, n, d], keys before RoPE.

    Args:
        q, k, v: with tangents.
        prefix: cached [1, K, P, d] before `start`, without tangent.
        sinks: keys and values of the first positions; those among the queries' own have the tangents of `k`, `v`.
        window, start, rope: as in `ttt_kernels.attention`.
    """
    length, heads, width = q[0].shape[2], k[0].shape[1], q[0].shape[3]
    scale = width**-0.5
    end = start + length
    held = min(prefix.k.shape[2], start)
    kept = slice(prefix.k.shape[2] - held, None)
    turned = [_turn(x, start, rope) * scale for x in q]
    keys = _turn(torch.cat((prefix.k[:, :, kept], k[0]), dim=2), start - held, rope)
    values = torch.cat((prefix.v[:, :, kept], v[0]), dim=2)
    own_keys = _turn(k[1], start, rope)
    count = sinks.k.shape[2] if window is not None and end > window else 0
    sink_scores = sink_values = (None, None)
    if count and window is not None:
        sink_keys = (sinks.k, _sink_tangent(k[1], sinks.k, start))
        sink_scores = _sink_scores(q, turned, sink_keys, start, window, rope, scale)  # type: ignore[assignment]
        sink_values = (sinks.v, _sink_tangent(v[1], sinks.v, start))  # type: ignore[assignment]
    out, d_out = _Attend.apply(  # type: ignore[no-untyped-call]
        *(_grouped(x, heads) for x in turned),
        keys[0], own_keys[0], values[0], v[1][0],
        *(None if s is None else _grouped(s, heads) for s in sink_scores),
        *(None if s is None else s[0] for s in sink_values),
        window, start, start - held, count,
    )  # fmt: skip
    return out.reshape(q[0].shape), d_out.reshape(q[0].shape)


def _turn(x: Tensor, first: int, rope: Rope) -> Tensor:
    rows = slice(first, first + x.shape[2])
    return rotate(x, rope.cos[rows], rope.sin[rows], interleaved=rope.interleaved)


def _grouped(x: Tensor, heads: int) -> Tensor:
    """[1, H, n, c] as [K, G, n, c]."""
    return x.reshape(heads, -1, *x.shape[2:])


def _sink_tangent(own: Tensor, like: Tensor, start: int) -> Tensor:
    """Tangents of the sinks: zero for cached ones."""
    fresh = max(0, like.shape[2] - start)
    known = torch.zeros_like(like[:, :, : like.shape[2] - fresh])
    return torch.cat((known, own[:, :, :fresh]), dim=2) if fresh else known


def _sink_scores(
    q: Pair, turned: list[Tensor], sink_k: Pair, start: int, window: int, rope: Rope, scale: float
) -> Pair:
    """Scores [1, H, n, S] of the sinks at distance min(p - s, window), with tangents; scores of later sinks masked."""
    count, length, group = sink_k[0].shape[2], q[0].shape[2], q[0].shape[1] // sink_k[0].shape[1]
    at = torch.arange(start, start + length, device=q[0].device)[:, None] - torch.arange(count, device=q[0].device)
    row = slice(window, window + 1)
    far_q = [rotate(x, rope.cos[row], rope.sin[row], interleaved=rope.interleaved) * scale for x in q]
    near_k = [_turn(x, 0, rope) for x in sink_k]

    def scores(queries: Tensor, keys: Tensor) -> Tensor:
        return queries @ keys.repeat_interleave(group, dim=1).transpose(-1, -2)

    def chosen(first: tuple[Tensor, Tensor], near: tuple[Tensor, Tensor]) -> Tensor:
        return torch.where(at < window, scores(*near), scores(*first))

    value = chosen((far_q[0], sink_k[0]), (turned[0], near_k[0]))
    tangent = chosen((far_q[1], sink_k[0]), (turned[1], near_k[0]))
    tangent = tangent + chosen((far_q[0], sink_k[1]), (turned[0], near_k[1]))
    return value.masked_fill(at < 0, float("-inf")), tangent.masked_fill(at < 0, 0.0)


@lru_cache(maxsize=8)
def _hidden(queries: int, keys: int, window: int | None, sinks: int) -> Tensor:
    """[q, N] True where a key is not seen; the last query stands at the last key. `sinks` leading keys are hidden."""
    at = torch.arange(keys - queries, keys)[:, None]
    key = torch.arange(keys)[None]
    hidden = (key > at) | (key < sinks)
    return hidden if window is None else hidden | (key <= at - window)


class _Tile:
    """One head's block of queries: which rows and keys, and the mask."""

    def __init__(self, begin: int, end: int, start: int, first: int, window: int | None, sinks: int) -> None:
        oldest = first if window is None else max(first, begin - window + 1)
        self.rows = slice(begin - start, end - start)
        self.keys = slice(oldest - first, end - first)
        own = max(oldest, start)
        self.own = slice(own - start, end - start)
        self.own_columns = slice(own - oldest, end - oldest)
        self.hidden = _hidden(end - begin, end - oldest, window, max(0, sinks - oldest))


def _tiles(length: int, start: int, first: int, window: int | None, sinks: int) -> list[_Tile]:
    begins = range(start, start + length, QUERIES)
    return [_Tile(b, min(b + QUERIES, start + length), start, first, window, sinks) for b in begins]


class _Scratch:
    """Four fp32 tiles [R, N + S], used again and again: fresh ones would cost more in page faults than the sums do."""

    def __init__(self, like: Tensor) -> None:
        self._like, self._dtype = like, compute_dtype(like.dtype)
        self._kept: dict[tuple[int, int], tuple[Tensor, ...]] = {}

    def __call__(self, rows: int, columns: int) -> tuple[Tensor, ...]:
        if (rows, columns) not in self._kept:
            made = self._like.new_empty(4, rows, columns, dtype=self._dtype)
            self._kept = {(rows, columns): tuple(made)}
        return self._kept[rows, columns]


def _stacked(above: Tensor, below: Tensor, like: Tensor) -> Tensor:
    """Both, one above the other, as products take them."""
    both = like.new_empty(2 * len(above), above.shape[1])
    both[: len(above)].copy_(above)
    both[len(above) :].copy_(below)
    return both


class _Attend(torch.autograd.Function):
    """q, dq [K, G, n, d] turned and scaled; k, v [K, N, d]; tangents dk, dv [K, n, d] of the last n; sinks' scores
    [K, G, n, S] with tangents and values [K, S, d] with tangents. Gives out, d_out [K, G, n, d]."""

    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        dq: Tensor,
        k: Tensor,
        dk: Tensor,
        v: Tensor,
        dv: Tensor,
        sink: Tensor | None,
        d_sink: Tensor | None,
        sink_v: Tensor | None,
        d_sink_v: Tensor | None,
        window: int | None,
        start: int,
        first: int,
        sinks: int,
    ) -> Pair:
        heads, group, length, width = q.shape
        out, d_out = torch.empty_like(q), torch.empty_like(q)
        tiles, scratch = _tiles(length, start, first, window, sinks), _Scratch(q)
        saved: list[Tensor] = []
        for head in range(heads):
            for tile in tiles:
                rows, d_rows = (x[head, :, tile.rows].reshape(-1, width) for x in (q, dq))
                keys, values = k[head, tile.keys], v[head, tile.keys]
                size, own, half, count = len(rows) // group, tile.own_columns, len(rows), len(keys)
                s, ds, p, _ = scratch(half, count + sinks)
                scores = torch.mm(torch.cat((rows, d_rows)), keys.T)
                s[:, :count].copy_(scores[:half])
                s.view(group, size, -1)[..., :count].masked_fill_(tile.hidden, float("-inf"))
                ds[:, :count].copy_(scores[half:])
                ds[:, own].add_(torch.mm(rows, dk[head, tile.own].T))
                if sink is not None and d_sink is not None:
                    s[:, count:].copy_(sink[head, :, tile.rows].reshape(half, -1))
                    ds[:, count:].copy_(d_sink[head, :, tile.rows].reshape(half, -1))
                torch.softmax(s, dim=-1, out=p)
                bent = ds.mul_(p)
                bent.addcmul_(p, bent.sum(-1, keepdim=True), value=-1)
                weights = _stacked(p[:, :count], bent[:, :count], q)
                y = torch.mm(weights, values)
                y[half:].add_(torch.mm(weights[:half, own], dv[head, tile.own]))
                saved.append(weights)
                if sink_v is not None and d_sink_v is not None:
                    far = torch.cat((p[:, count:], bent[:, count:])).to(q.dtype)
                    y.add_(torch.mm(far, sink_v[head]))
                    y[half:].add_(torch.mm(far[:half], d_sink_v[head]))
                    saved.append(far)
                out[head, :, tile.rows] = y[:half].view(group, size, width)
                d_out[head, :, tile.rows] = y[half:].view(group, size, width)
        ctx.save_for_backward(q, dq, k, dk, v, dv, sink_v, d_sink_v, *saved)
        ctx.tiles = tiles
        return out, d_out

    @staticmethod
    @first_order_only
    def backward(ctx: Any, a: Tensor, b: Tensor) -> tuple[Tensor | None, ...]:
        q, dq, k, dk, v, dv, sink_v, d_sink_v, *saved = ctx.saved_tensors
        heads, group, _, width = q.shape
        precise, scratch, stored = compute_dtype(q.dtype), _Scratch(q), iter(saved)
        for_q, for_dq = torch.empty_like(q), torch.empty_like(q)
        for_k, for_dk, for_v, for_dv = (x.new_zeros(x.shape, dtype=precise) for x in (k, dk, v, dv))
        sinks = 0 if sink_v is None else sink_v.shape[1]
        for_sink, for_d_sink = q.new_empty(2, *q.shape[:3], sinks)
        for_sink_v, for_d_sink_v = q.new_zeros(2, heads, sinks, width, dtype=precise)
        for head in range(heads):
            for tile in ctx.tiles:
                rows, d_rows, up, d_up = (x[head, :, tile.rows].reshape(-1, width) for x in (q, dq, a, b))
                keys, values = k[head, tile.keys], v[head, tile.keys]
                size, own, half, count = len(rows) // group, tile.own_columns, len(rows), len(keys)
                weights, ups, turns = next(stored), torch.cat((up, d_up)), torch.cat((rows, d_rows))
                x, r, p, spare = scratch(half, count + sinks)
                both = torch.mm(ups, values.T)
                x[:, :count].copy_(both[:half])
                x[:, own].add_(torch.mm(d_up, dv[head, tile.own].T))
                r[:, :count].copy_(both[half:])
                p[:, :count].copy_(weights[:half])
                far = None
                if sink_v is not None and d_sink_v is not None:
                    far = next(stored)
                    edge = torch.mm(ups, sink_v[head].T)
                    x[:, count:].copy_(edge[:half]).add_(torch.mm(d_up, d_sink_v[head].T))
                    r[:, count:].copy_(edge[half:])
                    p[:, count:].copy_(far[:half])
                torch.mul(r, p, out=spare)
                r.sub_(spare.sum(-1, keepdim=True))
                spare[:, :count].copy_(weights[half:])
                if far is not None:
                    spare[:, count:].copy_(far[half:])
                x.mul_(p).addcmul_(r, spare)
                x.addcmul_(p, x.sum(-1, keepdim=True), value=-1)
                r.mul_(p)
                scores = _stacked(x[:, :count], r[:, :count], q)
                near = scores[half:, own]
                on_q = torch.mm(scores, keys)
                on_q[:half].add_(torch.mm(near, dk[head, tile.own]))
                for_q[head, :, tile.rows], for_dq[head, :, tile.rows] = on_q.view(2, group, size, width)
                for_k[head, tile.keys] += torch.mm(scores.T, turns)
                for_dk[head, tile.own] += torch.mm(near.T, rows)
                for_v[head, tile.keys] += torch.mm(weights.T, ups)
                for_dv[head, tile.own] += torch.mm(weights[:half, own].T, d_up)
                if far is not None:
                    for_sink[head, :, tile.rows] = x[:, count:].view(group, size, sinks)
                    for_d_sink[head, :, tile.rows] = r[:, count:].view(group, size, sinks)
                    for_sink_v[head] += torch.mm(far.T, ups)
                    for_d_sink_v[head] += torch.mm(far[:half].T, d_up)
        sums = [x.to(q.dtype) for x in (for_k, for_dk, for_v, for_dv)]
        if sink_v is None:
            return for_q, for_dq, *sums, *([None] * 8)
        on_sinks = (for_sink, for_d_sink, for_sink_v.to(q.dtype), for_d_sink_v.to(q.dtype))
        return for_q, for_dq, *sums, *on_sinks, None, None, None, None
