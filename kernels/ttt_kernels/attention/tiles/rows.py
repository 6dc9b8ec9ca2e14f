# mypy: disable-error-code="no-untyped-def,untyped-decorator,no-untyped-call"
"""Loads shared by the kernels: rows of one head, rotated on the way where asked.

Legend: N rows of a tile, C columns: the head width D padded to a power of two.
"""

import triton
import triton.language as tl


@triton.jit
def load_rows(base, rows, stride, valid, columns, D: tl.constexpr):
    """Tile [N, C] of the rows of one head; zeros where invalid."""
    at = rows.to(tl.int64)[:, None] * stride + columns[None, :]
    return tl.load(base + at, mask=valid[:, None] & (columns < D)[None, :], other=0.0)


@triton.jit
def turn(base, rows, stride, valid, columns, cos, sin, positions, sign, D: tl.constexpr, PAIRED: tl.constexpr):
    """Tile [N, C] turned by the angles of `positions` [N], in fp32; `sign` -1 turns back.

    cos, sin: [positions, D/2] fp32, contiguous. PAIRED: pairs are columns (2j, 2j+1), otherwise (j, j + D/2).
    """
    if PAIRED:
        partner = columns ^ 1
        pair = columns // 2
        side = tl.where(columns % 2 == 0, -1.0, 1.0)
    else:
        first = columns < D // 2
        partner = tl.where(first, columns + D // 2, columns - D // 2)
        pair = tl.where(first, columns, columns - D // 2)
        side = tl.where(first, -1.0, 1.0)
    inside = valid[:, None] & (columns < D)[None, :]
    row = rows.to(tl.int64)[:, None] * stride
    x = tl.load(base + row + columns[None, :], mask=inside, other=0.0).to(tl.float32)
    y = tl.load(base + row + partner[None, :], mask=inside, other=0.0).to(tl.float32)
    angle = positions.to(tl.int64)[:, None] * (D // 2) + pair[None, :]
    c = tl.load(cos + angle, mask=inside, other=0.0).to(tl.float32)
    s = tl.load(sin + angle, mask=inside, other=0.0).to(tl.float32)
    return x * c + y * s * (side * sign)[None, :]


@triton.jit
def load_keys(
    base, rows, stride, valid, columns, cos, sin, positions, D: tl.constexpr, TURN: tl.constexpr, PAIRED: tl.constexpr
):
    """Tile [N, C] of keys in their own dtype, rotated to `positions` where TURN."""
    if TURN:
        at = tl.maximum(positions, 0)
        return turn(base, rows, stride, valid, columns, cos, sin, at, 1.0, D, PAIRED).to(base.dtype.element_ty)
    else:  # noqa: RET505 (Triton compiles both sides of a plain return otherwise)
        return load_rows(base, rows, stride, valid, columns, D)


@triton.jit
def store_rows(base, rows, width, valid, columns, tile, D: tl.constexpr):
    """Writes a tile [N, C] to contiguous rows of `width` columns, in the target's dtype."""
    at = rows.to(tl.int64)[:, None] * width + columns[None, :]
    tl.store(base + at, tile.to(base.dtype.element_ty), mask=valid[:, None] & (columns < D)[None, :])


@triton.jit
def seen_by(q_at, k_at, valid, oldest, window):
    """[M, N]: which keys each query sees: not after it, inside its window, not before `oldest`."""
    near = (k_at[None, :] <= q_at[:, None]) & (k_at[None, :] > q_at[:, None] - window)
    return near & (valid & (k_at >= oldest))[None, :]


@triton.jit
def seen_from(q_at, k_at, k_valid, q_valid, oldest, window):
    """[N, M]: the transpose of `seen_by`, for valid queries alone."""
    near = (k_at[:, None] <= q_at[None, :]) & (k_at[:, None] > q_at[None, :] - window)
    return near & (k_valid & (k_at >= oldest))[:, None] & q_valid[None, :]


@triton.jit(do_not_specialize=["T", "sign"])
def turn_rows_kernel(
    x, out, cos, sin, starts, sxb, sxh, sxt, shift, sign, H, T,
    D: tl.constexpr, C: tl.constexpr, PAIRED: tl.constexpr, N: tl.constexpr,
):  # fmt: skip
    """out [B, H, T, D] contiguous = x turned (sign 1) or turned back (-1) at positions starts[b] + shift + row."""
    batch, head = (tl.program_id(1) // H).to(tl.int64), (tl.program_id(1) % H).to(tl.int64)
    rows, columns = tl.program_id(0) * N + tl.arange(0, N), tl.arange(0, C)
    valid = rows < T
    at = tl.maximum(tl.load(starts + batch).to(tl.int32) + shift + rows, 0)
    tile = turn(x + batch * sxb + head * sxh, rows, sxt, valid, columns, cos, sin, at, sign, D, PAIRED)
    store_rows(out + (batch * H + head) * T * D, rows, D, valid, columns, tile, D)
