"""Triton path for many tenants: ragged rows sorted by tenant, weights found through a table of pointers.

Every tile is `ROWS` rows of one tenant against one slice of its weights, whatever else is in the batch, and the parts
of the last product are added in one fixed order: a tenant's rows come out the same bits alone or among others.

Legend: R rows, D hidden, F MLP width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ttt_kernels._launch import runnable

ROWS = 16
"""Rows of a tile: the fewest that a tensor core takes. A decode step is bound by reading weights, not by products."""

SPLIT = 4
"""Parts of the sum over F in the last product: one tenant alone would leave most of a GPU idle."""

_ALIGNMENT = 16


def swiglu_many(x: Tensor, rows: Sequence[int], gate_up: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    """See `ttt_kernels.swiglu.swiglu_many`."""
    runnable("x", x)
    for name, tensors in (("gate_up", gate_up), ("down", down)):
        for index, tensor in enumerate(tensors):
            if not tensor.is_contiguous() or tensor.data_ptr() % _ALIGNMENT:
                raise ValueError(
                    f"{name}[{index}] has strides {tensor.stride()}, expected a contiguous tensor at a multiple of "
                    f"{_ALIGNMENT} bytes for impl='triton'"
                )
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *gate_up, *down)):
        raise ValueError("x or a weight requires a gradient, which impl='triton' does not compute for many tenants")
    if not len(x):
        return torch.empty_like(x)
    tiles = [
        (tenant, start + first, min(ROWS, count - first))
        for tenant, (start, count) in enumerate(zip(_starts(rows), rows, strict=True))
        for first in range(0, count, ROWS)
    ]
    pointers = [(upper.data_ptr(), lower.data_ptr()) for upper, lower in zip(gate_up, down, strict=True)]
    inner = down[0].shape[1]
    return run_tiles(x.contiguous(), _table(tiles, x.device), _table(pointers, x.device), inner)


def _starts(rows: Sequence[int]) -> list[int]:
    starts = [0]
    for count in rows[:-1]:
        starts.append(starts[-1] + count)
    return starts


def _table(entries: Sequence[tuple[int, ...]], device: torch.device) -> Tensor:
    table = torch.tensor(entries, dtype=torch.int64)
    return table.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else table


def run_tiles(x: Tensor, tiles: Tensor, pointers: Tensor, inner: int) -> Tensor:
    """[R, D] from x [R, D], tiles [., 3] of (tenant, first row, rows) and pointers [tenants, 2] to the weights."""
    count, width = x.shape
    product = torch.empty(count, inner, dtype=x.dtype, device=x.device)
    parts = torch.empty(SPLIT, count, width, dtype=torch.float32, device=x.device)
    y = torch.empty_like(x)
    block_n, block_k = (32, 32) if x.dtype == torch.float32 else (32, 128)
    _gated_kernel[(len(tiles), triton.cdiv(inner, block_n))](
        x, product, tiles, pointers, width, inner, ROWS=ROWS, BLOCK_N=block_n, BLOCK_K=block_k, num_stages=4
    )
    _down_kernel[(len(tiles), triton.cdiv(width, block_n), SPLIT)](
        product,
        parts,
        tiles,
        pointers,
        count,
        width,
        inner,
        ROWS=ROWS,
        BLOCK_N=block_n,
        BLOCK_K=block_k,
        SPLIT=SPLIT,
        num_stages=4,
    )
    _add_kernel[(triton.cdiv(y.numel(), 1024),)](parts, y, y.numel(), SPLIT=SPLIT, BLOCK=1024)
    return y


@triton.jit
def _weights(pointers_ptr, tenant, which, like_ptr):  # type: ignore[no-untyped-def]
    address = tl.load(pointers_ptr + tenant * 2 + which)
    return tl.multiple_of(address.to(tl.pointer_type(like_ptr.dtype.element_ty)), 16)


@triton.jit  # type: ignore[untyped-decorator]
def _gated_kernel(  # type: ignore[no-untyped-def]
    x_ptr,
    product_ptr,
    tiles_ptr,
    pointers_ptr,
    width,
    inner,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    tile = tiles_ptr + tl.program_id(0) * 3
    gate_up_ptr = _weights(pointers_ptr, tl.load(tile), 0, x_ptr)
    offset = tl.arange(0, ROWS)
    rows, row_in = tl.load(tile + 1) + offset, (offset < tl.load(tile + 2))[:, None]
    columns = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column_in = (columns < inner)[:, None]
    x_rows = x_ptr + rows[:, None] * width
    gate_rows = gate_up_ptr + columns[:, None] * width
    up_rows = gate_up_ptr + (columns + inner)[:, None] * width
    gate = tl.zeros((ROWS, BLOCK_N), tl.float32)
    up = tl.zeros((ROWS, BLOCK_N), tl.float32)
    for first in range(0, width, BLOCK_K):
        k = (first + tl.arange(0, BLOCK_K))[None, :]
        x = tl.load(x_rows + k, mask=row_in & (k < width), other=0.0)
        g = tl.load(gate_rows + k, mask=column_in & (k < width), other=0.0)
        u = tl.load(up_rows + k, mask=column_in & (k < width), other=0.0)
        gate = tl.dot(x, tl.trans(g), gate, input_precision="ieee")
        up = tl.dot(x, tl.trans(u), up, input_precision="ieee")
    kind = product_ptr.dtype.element_ty
    # Rounded where the path of one sequence rounds what it saves.
    a = gate.to(kind).to(tl.float32)
    product = a * tl.sigmoid(a) * up.to(kind).to(tl.float32)
    product_at = product_ptr + rows[:, None] * inner + columns[None, :]
    tl.store(product_at, product.to(kind), mask=row_in & (columns < inner)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _down_kernel(  # type: ignore[no-untyped-def]
    product_ptr,
    parts_ptr,
    tiles_ptr,
    pointers_ptr,
    count,
    width,
    inner,
    ROWS: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    SPLIT: tl.constexpr,
):
    tile = tiles_ptr + tl.program_id(0) * 3
    down_ptr = _weights(pointers_ptr, tl.load(tile), 1, product_ptr)
    offset = tl.arange(0, ROWS)
    rows, row_in = tl.load(tile + 1) + offset, (offset < tl.load(tile + 2))[:, None]
    columns = tl.program_id(1).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    column_in = (columns < width)[:, None]
    product_rows = product_ptr + rows[:, None] * inner
    down_rows = down_ptr + columns[:, None] * inner
    total = tl.zeros((ROWS, BLOCK_N), tl.float32)
    share = tl.cdiv(tl.cdiv(inner, SPLIT), BLOCK_K) * BLOCK_K
    begin = tl.program_id(2) * share
    for first in range(begin, tl.minimum(begin + share, inner), BLOCK_K):
        k = (first + tl.arange(0, BLOCK_K))[None, :]
        m = tl.load(product_rows + k, mask=row_in & (k < inner), other=0.0)
        w = tl.load(down_rows + k, mask=column_in & (k < inner), other=0.0)
        total = tl.dot(m, tl.trans(w), total, input_precision="ieee")
    parts_at = parts_ptr + (tl.program_id(2).to(tl.int64) * count + rows)[:, None] * width + columns[None, :]
    tl.store(parts_at, total, mask=row_in & (columns < width)[None, :])


@triton.jit  # type: ignore[untyped-decorator]
def _add_kernel(parts_ptr, y_ptr, size, SPLIT: tl.constexpr, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    total = tl.load(parts_ptr + at, mask=at < size, other=0.0)
    for part in tl.static_range(1, SPLIT):
        total += tl.load(parts_ptr + part * tl.cast(size, tl.int64) + at, mask=at < size, other=0.0)
    tl.store(y_ptr + at, total.to(y_ptr.dtype.element_ty), mask=at < size)
