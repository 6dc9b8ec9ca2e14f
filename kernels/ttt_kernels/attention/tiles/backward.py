# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"
"""First derivative: one kernel over queries (dq), one over keys (dk, dv); no atomics, so the same bits every time.

Legend: M queries of a tile, N keys of a tile, C columns (head width D padded), G query heads per key/value head,
T queries of the chunk, P rows of the prefix, R rows of the key segment.
"""

import triton
import triton.language as tl

from ttt_kernels.attention.tiles.rows import load_keys, load_rows, seen_by, seen_from, store_rows

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _pull(
    acc, q, dout, lse, delta, q_at, k, v, skt, svt, cos, sin, first, lo, hi, oldest, window, scale, columns,
    D: tl.constexpr, N: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """Adds one segment's share of dS K [M, C]."""
    for begin in range(lo, hi, N):
        rows = begin + tl.arange(0, N)
        valid = rows < hi
        k_tile = load_keys(k, rows, skt, valid, columns, cos, sin, first + rows, D, TURN, PAIRED)
        v_tile = load_rows(v, rows, svt, valid, columns, D)
        scores = tl.dot(q, tl.trans(k_tile), input_precision="ieee") * (scale * LOG2E)
        seen = seen_by(q_at, first + rows, valid, oldest, window)
        p = tl.exp2(tl.where(seen, scores - lse[:, None] * LOG2E, float("-inf")))
        dp = tl.dot(dout, tl.trans(v_tile), input_precision="ieee")
        ds = p * (dp - delta[:, None])
        acc = tl.dot(ds.to(k_tile.dtype), k_tile, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["T", "P", "oldest", "window"])
def backward_queries_kernel(
    q, k, v, pk, pv, cos, sin, starts, out, lse, dout, dlse, dq, delta,
    sqb, sqh, sqt, skb, skh, skt, svb, svh, svt, spkb, spkh, spkt, spvb, spvh, spvt,
    H, T, P, oldest, window, scale,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    PREFIX: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """dq [B, H, T, D] of rotated queries, and delta [B, H, T] = rowsum(out * dout) - dlse for the kernel over keys."""
    batch, head = (tl.program_id(1) // H).to(tl.int64), (tl.program_id(1) % H).to(tl.int64)
    rows, columns = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, C)
    start = tl.load(starts + batch).to(tl.int32)
    begin = start + tl.program_id(0) * M
    q_at, valid = start + rows, rows < T
    at = (batch * H + head) * T
    q_tile = load_rows(q + batch * sqb + head * sqh, rows, sqt, valid, columns, D)
    do_tile = load_rows(dout + at * D, rows, D, valid, columns, D)
    o_tile = load_rows(out + at * D, rows, D, valid, columns, D)
    lse_row = tl.load(lse + at + rows, mask=valid, other=0.0)
    inner = tl.sum(o_tile.to(tl.float32) * do_tile.to(tl.float32), 1)
    inner -= tl.load(dlse + at + rows, mask=valid, other=0.0)
    tl.store(delta + at + rows, inner, mask=valid)
    acc = tl.zeros([M, C], tl.float32)
    kv = head // G
    if PREFIX:
        first = start - P
        lo = tl.minimum(tl.maximum(0, tl.maximum(oldest, begin - window + 1) - first), P)
        acc = _pull(acc, q_tile, do_tile, lse_row, inner, q_at, pk + batch * spkb + kv * spkh,
                    pv + batch * spvb + kv * spvh, spkt, spvt, cos, sin, first, lo, P,
                    oldest, window, scale, columns, D, N, TURN, PAIRED)  # fmt: skip
    end = tl.minimum(T, tl.program_id(0) * M + M)
    lo = tl.minimum(tl.maximum(0, tl.maximum(oldest, begin - window + 1) - start), end)
    acc = _pull(acc, q_tile, do_tile, lse_row, inner, q_at, k + batch * skb + kv * skh, v + batch * svb + kv * svh,
                skt, svt, cos, sin, start, lo, end, oldest, window, scale, columns, D, N, TURN, PAIRED)  # fmt: skip
    store_rows(dq + at * D, rows, D, valid, columns, acc * scale, D)


@triton.jit(do_not_specialize=["T", "R", "shift", "oldest", "window"])
def backward_keys_kernel(
    q, k, v, cos, sin, starts, lse, dout, delta, dk, dv,
    sqb, sqh, sqt, skb, skh, skt, svb, svh, svt,
    HK, T, R, shift, oldest, window, scale,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    TURN: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """dk, dv [B, HK, R, D] of one tile of a segment whose rows stand at starts[b] + shift + row.

    The query heads of the group are summed here, in order.
    """
    batch, kv = (tl.program_id(1) // HK).to(tl.int64), (tl.program_id(1) % HK).to(tl.int64)
    rows, columns = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, C)
    start = tl.load(starts + batch).to(tl.int32)
    valid, k_at = rows < R, start + shift + rows
    k_tile = load_keys(k + batch * skb + kv * skh, rows, skt, valid, columns, cos, sin, k_at, D, TURN, PAIRED)
    v_tile = load_rows(v + batch * svb + kv * svh, rows, svt, valid, columns, D)
    dk_acc = tl.zeros([N, C], tl.float32)
    dv_acc = tl.zeros([N, C], tl.float32)
    near = shift + tl.program_id(0) * N
    lo = tl.maximum(0, near) // M * M
    hi = tl.minimum(T, near + N - 1 + window)
    for member in range(G):
        head = kv * G + member
        at = (batch * HK * G + head) * T
        q_base = q + batch * sqb + head * sqh
        for begin in range(lo, hi, M):
            q_rows = begin + tl.arange(0, M)
            q_valid = q_rows < T
            q_tile = load_rows(q_base, q_rows, sqt, q_valid, columns, D)
            do_tile = load_rows(dout + at * D, q_rows, D, q_valid, columns, D)
            lse_row = tl.load(lse + at + q_rows, mask=q_valid, other=0.0)
            inner = tl.load(delta + at + q_rows, mask=q_valid, other=0.0)
            # Tiles [N, M], so that the products with queries take them from registers as they are.
            scores = tl.dot(k_tile, tl.trans(q_tile), input_precision="ieee") * (scale * LOG2E)
            seen = seen_from(start + q_rows, k_at, valid, q_valid, oldest, window)
            p = tl.exp2(tl.where(seen, scores - lse_row[None, :] * LOG2E, float("-inf")))
            dp = tl.dot(v_tile, tl.trans(do_tile), input_precision="ieee")
            ds = p * (dp - inner[None, :])
            dv_acc = tl.dot(p.to(do_tile.dtype), do_tile, dv_acc, input_precision="ieee")
            dk_acc = tl.dot(ds.to(q_tile.dtype), q_tile, dk_acc, input_precision="ieee")
    at = (batch * HK + kv) * R * D
    store_rows(dk + at, rows, D, valid, columns, dk_acc * scale, D)
    store_rows(dv + at, rows, D, valid, columns, dv_acc, D)
