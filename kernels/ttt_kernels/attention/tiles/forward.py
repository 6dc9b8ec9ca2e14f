# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"
"""Forward pass, and its tangent: pass A of the double backward.

Legend: M queries of a tile, N keys of a tile, C columns (head width D padded), G query heads per key/value head,
T queries of the chunk, P rows of the prefix.
"""

import triton
import triton.language as tl

from ttt_kernels.attention.tiles.rows import load_keys, load_rows, seen_by, store_rows

LOG2E = tl.constexpr(1.4426950408889634)
LN2 = tl.constexpr(0.6931471805599453)
NOTHING = tl.constexpr(-1.0e30)  # log-sum-exp of a query that sees no key; finite, so that no difference is NaN


@triton.jit
def _attend(
    top, total, acc, q, q_at, k, v, skt, svt, cos, sin, first, lo, hi, oldest, window, scale, columns,
    D: tl.constexpr, N: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Online softmax over the rows lo..hi of one segment, which stand at first + row."""
    for begin in range(lo, hi, N):
        rows = begin + tl.arange(0, N)
        valid = rows < hi
        k_tile = load_keys(k, rows, skt, valid, columns, cos, sin, first + rows, D, TURN, PAIRED)
        scores = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * (scale * LOG2E)
        if MASK:
            scores = tl.where(seen_by(q_at, first + rows, valid, oldest, window), scores, float("-inf"))
        highest = tl.maximum(top, tl.max(scores, 1))
        p = tl.exp2(scores - highest[:, None])
        shrink = tl.exp2(top - highest)
        total = total * shrink + tl.sum(p, 1)
        v_tile = load_rows(v, rows, svt, valid, columns, D)
        acc = tl.dot(p.to(v_tile.dtype), v_tile, acc * shrink[:, None], input_precision="ieee")
        top = highest
    return top, total, acc


@triton.jit
def whole_tiles(begin, first, lo, hi, oldest, window, M: tl.constexpr, N: tl.constexpr):
    """(lo, a, b): of the rows lo..hi, the tiles in a..b are seen in full by the M queries from position `begin`.

    lo is moved to the first row that any of them sees.
    """
    start = tl.minimum(tl.maximum(lo, tl.maximum(oldest, begin - window + 1) - first), hi)
    full = tl.maximum(oldest, begin + M - window) - first
    a = tl.minimum(start + tl.cdiv(tl.maximum(full - start, 0), N) * N, hi)
    last = tl.minimum(hi, begin - first + 1)
    b = tl.maximum(a, start + tl.maximum(last - start, 0) // N * N)
    return start, a, b


@triton.jit(do_not_specialize=["T", "P", "oldest", "window"])
def forward_kernel(
    q, k, v, pk, pv, cos, sin, starts, out, lse,
    sqb, sqh, sqt, skb, skh, skt, svb, svh, svt, spkb, spkh, spkt, spvb, spvh, spvt,
    H, T, P, oldest, window, scale,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    PREFIX: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """out [B, H, T, D] and lse [B, H, T] of one tile of queries, which are already rotated."""
    batch, head = (tl.program_id(1) // H).to(tl.int64), (tl.program_id(1) % H).to(tl.int64)
    rows, columns = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, C)
    start = tl.load(starts + batch).to(tl.int32)
    begin = start + tl.program_id(0) * M
    q_at, valid = start + rows, rows < T
    q_tile = load_rows(q + batch * sqb + head * sqh, rows, sqt, valid, columns, D)
    top = tl.full([M], NOTHING, tl.float32)
    total = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, C], tl.float32)
    kv = head // G
    if PREFIX:
        k_base, v_base, first = pk + batch * spkb + kv * spkh, pv + batch * spvb + kv * spvh, start - P
        lo, a, b = whole_tiles(begin, first, 0, P, oldest, window, M, N)
        top, total, acc = _attend(top, total, acc, q_tile, q_at, k_base, v_base, spkt, spvt, cos, sin, first, lo, a,
                                  oldest, window, scale, columns, D, N, TURN, PAIRED, True)  # fmt: skip
        top, total, acc = _attend(top, total, acc, q_tile, q_at, k_base, v_base, spkt, spvt, cos, sin, first, a, b,
                                  oldest, window, scale, columns, D, N, TURN, PAIRED, False)  # fmt: skip
        top, total, acc = _attend(top, total, acc, q_tile, q_at, k_base, v_base, spkt, spvt, cos, sin, first, b, P,
                                  oldest, window, scale, columns, D, N, TURN, PAIRED, True)  # fmt: skip
    k_base, v_base = k + batch * skb + kv * skh, v + batch * svb + kv * svh
    end = tl.minimum(T, tl.program_id(0) * M + M)
    lo, a, b = whole_tiles(begin, start, 0, end, oldest, window, M, N)
    top, total, acc = _attend(top, total, acc, q_tile, q_at, k_base, v_base, skt, svt, cos, sin, start, lo, a,
                              oldest, window, scale, columns, D, N, TURN, PAIRED, True)  # fmt: skip
    top, total, acc = _attend(top, total, acc, q_tile, q_at, k_base, v_base, skt, svt, cos, sin, start, a, b,
                              oldest, window, scale, columns, D, N, TURN, PAIRED, False)  # fmt: skip
    top, total, acc = _attend(top, total, acc, q_tile, q_at, k_base, v_base, skt, svt, cos, sin, start, b, end,
                              oldest, window, scale, columns, D, N, TURN, PAIRED, True)  # fmt: skip
    safe = tl.where(total > 0.0, total, 1.0)
    at = (batch * H + head) * T
    store_rows(out + at * D, rows, D, valid, columns, acc / safe[:, None], D)
    tl.store(lse + at + rows, tl.where(total > 0.0, (top + tl.log2(safe)) * LN2, NOTHING), mask=valid)


@triton.jit
def _tangent(
    slope, acc, q, ddq, q_at, lse, k, v, ddk, ddv, skt, svt, cos, sin, first, lo, hi, oldest, window, scale, columns,
    D: tl.constexpr, N: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    """Adds one segment's share of dd [M] and of P ddV + (P * ddS) V [M, C]; MOVING: the segment has ddK and ddV."""
    for begin in range(lo, hi, N):
        rows = begin + tl.arange(0, N)
        valid = rows < hi
        at = first + rows
        k_tile = load_keys(k, rows, skt, valid, columns, cos, sin, at, D, TURN, PAIRED)
        scores = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * (scale * LOG2E)
        seen = seen_by(q_at, at, valid, oldest, window)
        p = tl.exp2(tl.where(seen, scores - lse[:, None] * LOG2E, float("-inf")))
        dds = tl.dot(ddq, tl.trans(k_tile), input_precision="ieee")
        if MOVING:
            ddk_tile = load_keys(ddk, rows, D, valid, columns, cos, sin, at, D, TURN, PAIRED)
            dds = tl.dot(q, tl.trans(ddk_tile), dds, input_precision="ieee")
        weighted = p * (dds * scale)
        slope += tl.sum(weighted, 1)
        v_tile = load_rows(v, rows, svt, valid, columns, D)
        acc = tl.dot(weighted.to(v_tile.dtype), v_tile, acc, input_precision="ieee")
        if MOVING:
            ddv_tile = load_rows(ddv, rows, D, valid, columns, D)
            acc = tl.dot(p.to(v_tile.dtype), ddv_tile, acc, input_precision="ieee")
    return slope, acc


@triton.jit(do_not_specialize=["T", "P", "oldest", "window"])
def tangent_kernel(
    q, k, v, pk, pv, cos, sin, starts, out, lse, dout, dlse, ddq, ddk, ddv, ddpk, ddpv, ddout, slope, delta, offset,
    sqb, sqh, sqt, skb, skh, skt, svb, svh, svt, spkb, spkh, spkt, spvb, spvh, spvt,
    H, T, P, oldest, window, scale,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    PREFIX: tl.constexpr, MOVING: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """Pass A. ddout [B, H, T, D]; per query: slope = dd, delta = D - dlse, offset = B.

    MOVING: the prefix too has cotangents ddpk, ddpv. B is taken from the fp32 ddout: its two terms cancel.
    """
    batch, head = (tl.program_id(1) // H).to(tl.int64), (tl.program_id(1) % H).to(tl.int64)
    rows, columns = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, C)
    start = tl.load(starts + batch).to(tl.int32)
    begin = start + tl.program_id(0) * M
    q_at, valid = start + rows, rows < T
    at = (batch * H + head) * T
    q_tile = load_rows(q + batch * sqb + head * sqh, rows, sqt, valid, columns, D)
    ddq_tile = load_rows(ddq + at * D, rows, D, valid, columns, D)
    lse_row = tl.load(lse + at + rows, mask=valid, other=0.0)
    dd = tl.zeros([M], tl.float32)
    acc = tl.zeros([M, C], tl.float32)
    kv = head // G
    if PREFIX:
        first = start - P
        near = (batch * (H // G) + kv) * P * D
        lo = tl.minimum(tl.maximum(0, tl.maximum(oldest, begin - window + 1) - first), P)
        dd, acc = _tangent(dd, acc, q_tile, ddq_tile, q_at, lse_row, pk + batch * spkb + kv * spkh,
                           pv + batch * spvb + kv * spvh, ddpk + near, ddpv + near, spkt, spvt, cos, sin, first, lo, P,
                           oldest, window, scale, columns, D, N, TURN, PAIRED, MOVING)  # fmt: skip
    own = (batch * (H // G) + kv) * T * D
    end = tl.minimum(T, tl.program_id(0) * M + M)
    lo = tl.minimum(tl.maximum(0, tl.maximum(oldest, begin - window + 1) - start), end)
    dd, acc = _tangent(dd, acc, q_tile, ddq_tile, q_at, lse_row, k + batch * skb + kv * skh, v + batch * svb + kv * svh,
                       ddk + own, ddv + own, skt, svt, cos, sin, start, lo, end,
                       oldest, window, scale, columns, D, N, TURN, PAIRED, True)  # fmt: skip
    o_tile = load_rows(out + at * D, rows, D, valid, columns, D).to(tl.float32)
    do_tile = load_rows(dout + at * D, rows, D, valid, columns, D).to(tl.float32)
    moved = acc - dd[:, None] * o_tile
    inner = tl.sum(o_tile * do_tile, 1) - tl.load(dlse + at + rows, mask=valid, other=0.0)
    store_rows(ddout + at * D, rows, D, valid, columns, moved, D)
    tl.store(slope + at + rows, dd, mask=valid)
    tl.store(delta + at + rows, inner, mask=valid)
    tl.store(offset + at + rows, tl.sum(do_tile * moved, 1) - inner * dd, mask=valid)
