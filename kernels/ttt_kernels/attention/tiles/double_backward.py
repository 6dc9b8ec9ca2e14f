# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"
"""Second derivative, pass B: one kernel over queries (dq'), one over keys (dk', dv'), from pass A's row sums.

Legend: M queries of a tile, N keys of a tile, C columns (head width D padded), G query heads per key/value head,
T queries of the chunk, P rows of the prefix, R rows of the key segment.
"""

import triton
import triton.language as tl

from ttt_kernels.attention.tiles.rows import load_keys, load_rows, seen_by, seen_from, store_rows

LOG2E = tl.constexpr(1.4426950408889634)


@triton.jit
def _product(q, k, KEYS_FIRST: tl.constexpr):
    """[M, N] of a tile of queries [M, C] and one of keys [N, C], or [N, M]."""
    if KEYS_FIRST:
        return tl.dot(k, tl.trans(q), input_precision="ieee")
    else:  # noqa: RET505 (Triton compiles both sides of a plain return otherwise)
        return tl.dot(q, tl.trans(k), input_precision="ieee")


@triton.jit
def _scores(
    q, ddq, dout, lse, delta, slope, offset, seen, k, v, ddk, ddv, scale,
    MOVING: tl.constexpr, KEYS_FIRST: tl.constexpr,
):  # fmt: skip
    """Tiles [M, N] of one pair of tiles, or [N, M]: P, ddS, dS / scale, dS2 / scale (the names of the README).

    lse, delta, slope, offset: per query, [M, 1] or [1, M].
    """
    scores = _product(q, k, KEYS_FIRST) * (scale * LOG2E)
    p = tl.exp2(tl.where(seen, scores - lse * LOG2E, float("-inf")))
    dds = _product(ddq, k, KEYS_FIRST)
    if MOVING:
        dds += _product(q, ddk, KEYS_FIRST)
    dds = dds * scale
    dp = _product(dout, v, KEYS_FIRST)
    dp2 = (dp - delta) * dds - dp * slope
    if MOVING:
        dp2 += _product(dout, ddv, KEYS_FIRST)
    return p, dds, p * (dp - delta), p * (dp2 - offset)


@triton.jit
def _per_query(x, KEYS_FIRST: tl.constexpr):
    """[M] as [M, 1], or [1, M]."""
    if KEYS_FIRST:
        return x[None, :]
    else:  # noqa: RET505 (Triton compiles both sides of a plain return otherwise)
        return x[:, None]


@triton.jit
def _push(tile, rows, acc, KEYS_FIRST: tl.constexpr):
    """Adds the product of a tile [M, N], transposed, or [N, M], with rows of queries [M, C]."""
    tile = tile.to(rows.dtype)
    if KEYS_FIRST:
        return tl.dot(tile, rows, acc, input_precision="ieee")
    else:  # noqa: RET505
        return tl.dot(tl.trans(tile), rows, acc, input_precision="ieee")


@triton.jit
def _pull(
    acc, q, ddq, dout, lse, delta, slope, offset, q_at, k, v, ddk, ddv, skt, svt, cos, sin, first, lo, hi,
    oldest, window, scale, columns,
    D: tl.constexpr, N: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr, MOVING: tl.constexpr,
):  # fmt: skip
    """Adds one segment's share of dS ddK + dS2 K [M, C]."""
    for begin in range(lo, hi, N):
        rows = begin + tl.arange(0, N)
        valid = rows < hi
        at = first + rows
        k_tile = load_keys(k, rows, skt, valid, columns, cos, sin, at, D, TURN, PAIRED)
        v_tile = load_rows(v, rows, svt, valid, columns, D)
        seen = seen_by(q_at, at, valid, oldest, window)
        if MOVING:
            ddk_tile = load_keys(ddk, rows, D, valid, columns, cos, sin, at, D, TURN, PAIRED)
            ddv_tile = load_rows(ddv, rows, D, valid, columns, D)
            _p, _dds, ds, ds2 = _scores(q, ddq, dout, lse, delta, slope, offset, seen, k_tile, v_tile, ddk_tile,
                                        ddv_tile, scale, True, False)  # fmt: skip
            acc = tl.dot(ds.to(ddk_tile.dtype), ddk_tile, acc, input_precision="ieee")
        else:
            _p, _dds, ds, ds2 = _scores(q, ddq, dout, lse, delta, slope, offset, seen, k_tile, v_tile, k_tile,
                                        v_tile, scale, False, False)  # fmt: skip
        acc = tl.dot(ds2.to(k_tile.dtype), k_tile, acc, input_precision="ieee")
    return acc


@triton.jit(do_not_specialize=["T", "P", "oldest", "window"])
def double_queries_kernel(
    q, k, v, pk, pv, cos, sin, starts, lse, dout, ddq, ddk, ddv, ddpk, ddpv, slope, delta, offset, out_q,
    sqb, sqh, sqt, skb, skh, skt, svb, svh, svt, spkb, spkh, spkt, spvb, spvh, spvt,
    H, T, P, oldest, window, scale,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    PREFIX: tl.constexpr, MOVING: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """out_q [B, H, T, D] = dq'. MOVING: the prefix too has cotangents ddpk, ddpv."""
    batch, head = (tl.program_id(1) // H).to(tl.int64), (tl.program_id(1) % H).to(tl.int64)
    rows, columns = tl.program_id(0) * M + tl.arange(0, M), tl.arange(0, C)
    start = tl.load(starts + batch).to(tl.int32)
    begin = start + tl.program_id(0) * M
    q_at, valid = start + rows, rows < T
    at = (batch * H + head) * T
    q_tile = load_rows(q + batch * sqb + head * sqh, rows, sqt, valid, columns, D)
    ddq_tile = load_rows(ddq + at * D, rows, D, valid, columns, D)
    do_tile = load_rows(dout + at * D, rows, D, valid, columns, D)
    lse_row = tl.load(lse + at + rows, mask=valid, other=0.0)[:, None]
    inner = tl.load(delta + at + rows, mask=valid, other=0.0)[:, None]
    dd = tl.load(slope + at + rows, mask=valid, other=0.0)[:, None]
    shift = tl.load(offset + at + rows, mask=valid, other=0.0)[:, None]
    acc = tl.zeros([M, C], tl.float32)
    kv = head // G
    if PREFIX:
        first = start - P
        near = (batch * (H // G) + kv) * P * D
        lo = tl.minimum(tl.maximum(0, tl.maximum(oldest, begin - window + 1) - first), P)
        acc = _pull(acc, q_tile, ddq_tile, do_tile, lse_row, inner, dd, shift, q_at, pk + batch * spkb + kv * spkh,
                    pv + batch * spvb + kv * spvh, ddpk + near, ddpv + near, spkt, spvt, cos, sin, first, lo, P,
                    oldest, window, scale, columns, D, N, TURN, PAIRED, MOVING)  # fmt: skip
    own = (batch * (H // G) + kv) * T * D
    end = tl.minimum(T, tl.program_id(0) * M + M)
    lo = tl.minimum(tl.maximum(0, tl.maximum(oldest, begin - window + 1) - start), end)
    acc = _pull(acc, q_tile, ddq_tile, do_tile, lse_row, inner, dd, shift, q_at, k + batch * skb + kv * skh,
                v + batch * svb + kv * svh, ddk + own, ddv + own, skt, svt, cos, sin, start, lo, end,
                oldest, window, scale, columns, D, N, TURN, PAIRED, True)  # fmt: skip
    store_rows(out_q + at * D, rows, D, valid, columns, acc * scale, D)


@triton.jit(do_not_specialize=["T", "R", "shift", "oldest", "window"])
def double_keys_kernel(
    q, k, v, cos, sin, starts, lse, dout, ddq, ddk, ddv, slope, delta, offset, out_k, out_v,
    sqb, sqh, sqt, skb, skh, skt, svb, svh, svt,
    HK, T, R, shift, oldest, window, scale,
    G: tl.constexpr, D: tl.constexpr, C: tl.constexpr, M: tl.constexpr, N: tl.constexpr,
    MOVING: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr,
):  # fmt: skip
    """out_k, out_v [B, HK, R, D] = dk', dv' of a segment whose rows stand at starts[b] + shift + row.

    Tiles are [N, M] for narrow heads: their products with queries then take them from registers as they are. For wide
    ones the four tiles of keys, which such products hold in registers all along, would not fit there.
    """
    KEYS_FIRST: tl.constexpr = C <= 64
    batch, kv = (tl.program_id(1) // HK).to(tl.int64), (tl.program_id(1) % HK).to(tl.int64)
    rows, columns = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, C)
    start = tl.load(starts + batch).to(tl.int32)
    valid, k_at = rows < R, start + shift + rows
    k_tile = load_keys(k + batch * skb + kv * skh, rows, skt, valid, columns, cos, sin, k_at, D, TURN, PAIRED)
    v_tile = load_rows(v + batch * svb + kv * svh, rows, svt, valid, columns, D)
    own = (batch * HK + kv) * R * D
    if MOVING:
        ddk_tile = load_keys(ddk + own, rows, D, valid, columns, cos, sin, k_at, D, TURN, PAIRED)
        ddv_tile = load_rows(ddv + own, rows, D, valid, columns, D)
    else:
        ddk_tile = k_tile
        ddv_tile = v_tile
    k_acc = tl.zeros([N, C], tl.float32)
    v_acc = tl.zeros([N, C], tl.float32)
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
            ddq_tile = load_rows(ddq + at * D, q_rows, D, q_valid, columns, D)
            do_tile = load_rows(dout + at * D, q_rows, D, q_valid, columns, D)
            lse_row = _per_query(tl.load(lse + at + q_rows, mask=q_valid, other=0.0), KEYS_FIRST)
            inner = _per_query(tl.load(delta + at + q_rows, mask=q_valid, other=0.0), KEYS_FIRST)
            dd = _per_query(tl.load(slope + at + q_rows, mask=q_valid, other=0.0), KEYS_FIRST)
            offsets = _per_query(tl.load(offset + at + q_rows, mask=q_valid, other=0.0), KEYS_FIRST)
            if KEYS_FIRST:
                seen = seen_from(start + q_rows, k_at, valid, q_valid, oldest, window)
            else:
                seen = seen_by(start + q_rows, k_at, valid, oldest, window) & q_valid[:, None]
            p, dds, ds, ds2 = _scores(q_tile, ddq_tile, do_tile, lse_row, inner, dd, offsets, seen, k_tile, v_tile,
                                      ddk_tile, ddv_tile, scale, MOVING, KEYS_FIRST)  # fmt: skip
            v_acc = _push(p * (dds - dd), do_tile, v_acc, KEYS_FIRST)
            k_acc = _push(ds, ddq_tile, k_acc, KEYS_FIRST)
            k_acc = _push(ds2, q_tile, k_acc, KEYS_FIRST)
    store_rows(out_k + own, rows, D, valid, columns, k_acc * scale, D)
    store_rows(out_v + own, rows, D, valid, columns, v_acc, D)
