"""Launches the kernels: buffers, grids, tile sizes.

Legend: B batch, H query heads, HK key/value heads, T queries, P prefix rows, D head width.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from ttt_kernels.attention.tiles.backward import backward_keys_kernel, backward_queries_kernel
from ttt_kernels.attention.tiles.double_backward import double_keys_kernel, double_queries_kernel
from ttt_kernels.attention.tiles.forward import forward_kernel, tangent_kernel
from ttt_kernels.attention.tiles.function import Grads, five, stats
from ttt_kernels.attention.tiles.geometry import Geometry
from ttt_kernels.attention.tiles.rows import turn_rows_kernel


@dataclass(frozen=True)
class Tile:
    """Queries and keys of a tile, and the program's shape."""

    queries: int
    keys: int
    warps: int
    stages: int

    def options(self) -> dict[str, int]:
        """As keyword arguments of a launch."""
        return {"M": self.queries, "N": self.keys, "num_warps": self.warps, "num_stages": self.stages}


NARROW = {
    "forward": Tile(128, 64, 8, 3),
    "tangent": Tile(64, 64, 4, 2),
    "backward_queries": Tile(64, 64, 4, 2),
    "backward_keys": Tile(64, 64, 4, 2),
    "double_queries": Tile(64, 32, 4, 2),
    "double_keys": Tile(32, 64, 4, 2),
}
"""Tiles for head widths up to 64, in 16-bit."""
WIDE = {
    "forward": Tile(128, 64, 8, 2),
    "tangent": Tile(64, 32, 8, 2),
    "backward_queries": Tile(64, 64, 8, 2),
    "backward_keys": Tile(64, 64, 8, 2),
    "double_queries": Tile(64, 32, 8, 2),
    "double_keys": Tile(64, 32, 8, 1),
}
"""Tiles for head widths up to 128, in 16-bit."""
PRECISE = {
    **dict.fromkeys(NARROW, Tile(32, 32, 8, 1)),
    "tangent": Tile(16, 16, 8, 1),
    "double_keys": Tile(32, 16, 8, 1),
}
"""Tiles for fp32, whose products do not use the tensor cores."""


@dataclass(frozen=True)
class TritonPasses:
    """`Passes` as Triton kernels, for fp16, bf16 and fp32, head widths up to 128.

    Attributes:
        turn_on_load: rotate keys where a kernel loads them; otherwise once, into a copy, before the kernels.
        tiles: sizes by kernel in place of the tables of this module.
    """

    turn_on_load: bool = True
    tiles: dict[str, Tile] | None = None

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, pk: Tensor | None, pv: Tensor | None, at: Geometry
    ) -> tuple[Tensor, Tensor]:
        """See `Passes.forward`."""
        out, lse = torch.empty(q.shape, dtype=q.dtype, device=q.device), stats(q)
        call = _Call(self, q, k, v, pk, pv, at)
        forward_kernel[call.over_queries("forward")](
            *call.tensors(), out, lse, *call.sizes(), **call.options("forward")
        )
        return out, lse

    def backward(
        self,
        inputs: tuple[Tensor | None, ...],
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor,
        at: Geometry,
        keys: bool,
        prefix: bool,
    ) -> Grads:
        """See `Passes.backward`."""
        call, dout = _Call(self, *five(inputs), at), dout.contiguous()
        dq, delta = call.scratch(call.q), stats(call.q)
        name = "backward_queries"
        backward_queries_kernel[call.over_queries(name)](
            *call.tensors(), out, lse, dout, dlse.contiguous(), dq, delta, *call.sizes(), **call.options(name)
        )
        grads: list[Tensor | None] = [call.back(dq, 0)]
        for asked, segment in ((keys, call.own()), (prefix, call.before())):
            if not asked or segment is None:
                grads += [None, None]
                continue
            dk, dv = call.scratch(segment.k), torch.empty_like(segment.v, memory_format=torch.contiguous_format)
            name = "backward_keys"
            backward_keys_kernel[call.over_keys(name, segment)](
                *call.segment(segment), lse, dout, delta, dk, dv, *call.segment_sizes(segment),
                **call.key_options(name),
            )  # fmt: skip
            grads += [call.back(dk, segment.shift), dv]
        return tuple(grads)

    def double(
        self,
        inputs: tuple[Tensor | None, ...],
        out: Tensor,
        lse: Tensor,
        dout: Tensor,
        dlse: Tensor,
        cotangents: tuple[Tensor | None, ...],
        at: Geometry,
        prefix: bool,
    ) -> Grads:
        """See `Passes.double`."""
        call, dout = _Call(self, *five(inputs), at), dout.contiguous()
        ddq = call.turned(_filled(cotangents[0], call.q), 0).contiguous()
        ddk, ddv = call.keys(_filled(cotangents[1], call.k), 0), _filled(cotangents[2], call.v)
        moving = cotangents[3] is not None or cotangents[4] is not None
        ddpk, ddpv = ddk, ddv
        if moving and call.pk is not None and call.pv is not None:
            ddpk = call.keys(_filled(cotangents[3], call.pk), -call.held)
            ddpv = _filled(cotangents[4], call.pv)
        tangents = (ddq, ddk, ddv, ddpk, ddpv)
        ddout, slope, delta, offset = torch.empty_like(out), stats(call.q), stats(call.q), stats(call.q)
        name = "tangent"
        tangent_kernel[call.over_queries(name)](
            *call.tensors(), out, lse, dout, dlse.contiguous(), *tangents, ddout, slope, delta, offset,
            *call.sizes(), MOVING=moving, **call.options(name),
        )  # fmt: skip
        gq, name = call.scratch(call.q), "double_queries"
        double_queries_kernel[call.over_queries(name)](
            *call.tensors(), lse, dout, *tangents, slope, delta, offset, gq,
            *call.sizes(), MOVING=moving, **call.options(name),
        )  # fmt: skip
        grads: list[Tensor | None] = [call.back(gq, 0)]
        for segment in (call.own(), call.before() if prefix else None):
            if segment is None:
                grads += [None, None]
                continue
            near = segment.shift == 0
            gk, gv = call.scratch(segment.k), torch.empty_like(segment.v, memory_format=torch.contiguous_format)
            name = "double_keys"
            double_keys_kernel[call.over_keys(name, segment)](
                *call.segment(segment), lse, dout, ddq, ddk if near else ddpk, ddv if near else ddpv,
                slope, delta, offset, gk, gv, *call.segment_sizes(segment),
                MOVING=near or moving, **call.key_options(name),
            )  # fmt: skip
            grads += [call.back(gk, segment.shift), gv]
        return (*grads, ddout, slope)


@dataclass(frozen=True)
class _Segment:
    """Keys that stand at starts + shift + row."""

    k: Tensor
    v: Tensor
    shift: int


class _Call:
    """One pass's tensors, made ready: last dimension dense, q rotated, keys too unless they are on load."""

    def __init__(
        self,
        passes: TritonPasses,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        pk: Tensor | None,
        pv: Tensor | None,
        at: Geometry,
    ) -> None:
        self.batch, self.heads, self.length, self.width = q.shape
        self.group = self.heads // k.shape[1]
        self.held = 0 if pk is None else pk.shape[2]
        self.at, self.turns, self.on_load = at, at.cos is not None, at.cos is not None and passes.turn_on_load
        table = PRECISE if q.dtype == torch.float32 else NARROW if self.width <= 64 else WIDE
        self.table = passes.tiles or table
        self.q, self.k = self.turned(_dense(q), 0), self.keys(_dense(k), 0)
        self.v = _dense(v)
        self.pk = None if pk is None else self.keys(_dense(pk), -self.held)
        self.pv = None if pv is None else _dense(pv)

    def turned(self, x: Tensor, shift: int, sign: float = 1.0, dtype: torch.dtype | None = None) -> Tensor:
        """x [B, H, N, D] at positions starts + shift + row, turned (1.0) or back (-1.0); contiguous if turned."""
        if not self.turns:
            return x
        out = torch.empty(x.shape, dtype=dtype or x.dtype, device=x.device)
        rows = 32
        grid = (triton.cdiv(x.shape[2], rows), x.shape[0] * x.shape[1])
        turn_rows_kernel[grid](
            x, out, self.at.cos, self.at.sin, self.at.starts, *x.stride()[:3], shift, sign, x.shape[1], x.shape[2],
            D=self.width, C=_padded(self.width), PAIRED=self.at.paired, N=rows, num_warps=4,
        )  # fmt: skip
        return out

    def keys(self, x: Tensor, shift: int) -> Tensor:
        """Keys as the kernels want them."""
        return x if self.on_load else self.turned(x, shift)

    def scratch(self, x: Tensor) -> Tensor:
        """Contiguous target for a gradient of x; fp32 where it is still to be turned back."""
        return torch.empty(x.shape, dtype=torch.float32 if self.turns else x.dtype, device=x.device)

    def back(self, gradient: Tensor, shift: int) -> Tensor:
        """The gradient of what was rotated, from the gradient of its rotation."""
        return self.turned(gradient, shift, -1.0, self.q.dtype)

    def own(self) -> _Segment:
        return _Segment(self.k, self.v, 0)

    def before(self) -> _Segment | None:
        return None if self.pk is None or self.pv is None else _Segment(self.pk, self.pv, -self.held)

    def tables(self) -> tuple[Tensor, Tensor]:
        cos, sin = self.at.cos, self.at.sin
        return (self.q, self.q) if cos is None or sin is None else (cos, sin)

    def tensors(self) -> tuple[Tensor, ...]:
        """q, k, v, pk, pv, cos, sin, starts."""
        pk, pv = (self.k, self.v) if self.pk is None or self.pv is None else (self.pk, self.pv)
        return (self.q, self.k, self.v, pk, pv, *self.tables(), self.at.starts)

    def sizes(self) -> tuple[int | float, ...]:
        strides = [stride for x in self.tensors()[:5] for stride in x.stride()[:3]]
        return (*strides, self.heads, self.length, self.held, self.at.oldest, self.at.window, self.at.scale)

    def segment(self, segment: _Segment) -> tuple[Tensor, ...]:
        """q, k, v, cos, sin, starts."""
        return (self.q, segment.k, segment.v, *self.tables(), self.at.starts)

    def segment_sizes(self, segment: _Segment) -> tuple[int | float, ...]:
        strides = [stride for x in (self.q, segment.k, segment.v) for stride in x.stride()[:3]]
        heads, rows = segment.k.shape[1], segment.k.shape[2]
        at = self.at
        return (*strides, heads, self.length, rows, segment.shift, at.oldest, at.window, at.scale)

    def key_options(self, name: str) -> dict[str, int | bool]:
        shared = {"G": self.group, "D": self.width, "C": _padded(self.width)}
        return {**shared, "TURN": self.on_load, "PAIRED": self.at.paired, **self.table[name].options()}

    def options(self, name: str) -> dict[str, int | bool]:
        return {**self.key_options(name), "PREFIX": self.held > 0}

    def over_queries(self, name: str) -> tuple[int, int]:
        return triton.cdiv(self.length, self.table[name].queries), self.batch * self.heads

    def over_keys(self, name: str, segment: _Segment) -> tuple[int, int]:
        return triton.cdiv(segment.k.shape[2], self.table[name].keys), self.batch * segment.k.shape[1]


def _dense(x: Tensor) -> Tensor:
    """x with its last dimension contiguous; the others keep their strides."""
    return x if x.stride(-1) == 1 or x.shape[-1] == 1 else x.contiguous()


def _filled(cotangent: Tensor | None, like: Tensor) -> Tensor:
    """A contiguous cotangent; zeros for one that is missing."""
    return (
        torch.zeros(like.shape, dtype=like.dtype, device=like.device) if cotangent is None else cotangent.contiguous()
    )


def _padded(width: int) -> int:
    """Columns of a tile: a power of two, at least what a matrix product takes."""
    return max(16, 1 << (width - 1).bit_length())
