"""GPU path: Triton kernels for the window, the few sinks merged by hand; two derivatives.

Softmax over window and sinks together is the window's own result reweighted through its log-sum-exp. The kernels'
Function returns that log-sum-exp with derivatives of its own, so the merge is ordinary autograd.

Legend: B batch, HK key/value heads, G query heads per key/value head, T queries, S sinks, D head width.
"""

from __future__ import annotations

import os

import torch
from torch import Tensor

from ttt_kernels.attention.rotation import rotate
from ttt_kernels.attention.tiles.function import Passes, attend
from ttt_kernels.attention.tiles.geometry import NO_WINDOW, Geometry
from ttt_kernels.attention.tiles.launch import TritonPasses
from ttt_kernels.attention.types import KeyValues, Rope
from ttt_kernels.precision import compute_dtype

MAX_WIDTH = 128
_DTYPES = (torch.float16, torch.bfloat16, torch.float32)


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
    prefix_grad: bool,
) -> Tensor:
    """See `ttt_kernels.attention.attention`."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not q.is_cuda and not interpreted:
        raise ValueError(
            f"q is on {q.device}, expected cuda for impl='triton' (or the interpreter, TRITON_INTERPRET=1)"
        )
    if q.dtype not in _DTYPES or (interpreted and q.dtype == torch.bfloat16):
        raise ValueError(f"q has dtype {q.dtype}, expected float16, float32 or, on a GPU, bfloat16 for impl='triton'")
    if q.shape[-1] > MAX_WIDTH:
        raise ValueError(f"q has shape {list(q.shape)}, expected a width D up to {MAX_WIDTH} for impl='triton'")
    with torch.cuda.device_of(q):  # type: ignore[no-untyped-call]
        return windowed(
            q,
            k,
            v,
            window=window,
            start=start,
            prefix=prefix,
            sinks=sinks,
            rope=rope,
            scale=scale,
            prefix_grad=prefix_grad,
            passes=TritonPasses(),
        )


def windowed(
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
    prefix_grad: bool,
    passes: Passes,
) -> Tensor:
    """The operation with its arithmetic given, so that the closed form takes the kernels' place in a test."""
    if q.numel() == 0:
        return q.clone()
    if isinstance(start, Tensor):
        starts = start.to(q.device, torch.int64).contiguous()
    else:
        starts = torch.full((q.shape[0],), start, dtype=torch.int64, device=q.device)
    count = 0 if sinks is None else sinks.k.shape[2]
    pk, pv = (None, None) if prefix is None or prefix.k.shape[2] == 0 else prefix
    precise = compute_dtype(q.dtype)
    at = Geometry(
        starts=starts,
        window=NO_WINDOW if window is None else window,
        oldest=count,
        scale=scale,
        cos=None if rope is None else rope.cos.to(q.device, precise).contiguous(),
        sin=None if rope is None else rope.sin.to(q.device, precise).contiguous(),
        paired=rope is not None and rope.interleaved,
        prefix_grad=prefix_grad,
    )
    out, lse = attend(q, k, v, pk, pv, at, passes)
    if sinks is None or not count:
        return out
    scores = _sink_scores(q, sinks.k, at)
    shares = torch.softmax(torch.cat((lse[..., None], scores), dim=-1), dim=-1)
    weights = _grouped(shares[..., 1:], k)
    merged = torch.matmul(weights, sinks.v.to(precise)[:, :, None]).flatten(1, 2)
    return torch.addcmul(merged, out.to(precise), shares[..., :1]).to(q.dtype)


def _sink_scores(q: Tensor, sink_k: Tensor, at: Geometry) -> Tensor:
    """Scores [B, HK * G, T, S] in fp32: a sink stands at distance min(p - s, window); unseen ones at -inf."""
    sink_at = torch.arange(sink_k.shape[2], device=q.device)
    q_at = at.starts[:, None] + torch.arange(q.shape[2], device=q.device)
    turned_k = _turn(sink_k, sink_at[None], at)
    near = _products(_turn(q, q_at, at), turned_k)
    far = near
    if at.cos is None or at.window < at.cos.shape[0]:  # otherwise no position is that far from another
        # Outside the window all sinks stand at one distance, so that one rotation of q serves them all.
        far = _products(_turn(q, at.starts.new_full((1, 1), at.window), at), sink_k)
    distance = q_at[..., None] - sink_at
    scores = torch.where((distance < at.window)[:, None], near, far) * at.scale
    return scores.masked_fill((distance < 0)[:, None], float("-inf"))


def _grouped(x: Tensor, k: Tensor) -> Tensor:
    """[B, HK * G, ...] as [B, HK, G, ...]."""
    return x.reshape(x.shape[0], k.shape[1], -1, *x.shape[2:])


def _products(q: Tensor, sink_k: Tensor) -> Tensor:
    """[B, HK * G, T, S] in the precision of the softmax."""
    return torch.matmul(_grouped(q, sink_k), sink_k[:, :, None].mT).flatten(1, 2).to(compute_dtype(q.dtype))


def _turn(x: Tensor, positions: Tensor, at: Geometry) -> Tensor:
    """Rotates [B, H, N, D] to `positions` [1 or B, 1 or N]."""
    if at.cos is None or at.sin is None:
        return x
    return rotate(x, at.cos[positions][:, None], at.sin[positions][:, None], interleaved=at.paired)
