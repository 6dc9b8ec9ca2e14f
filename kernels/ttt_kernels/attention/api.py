"""Public face of the attention operation: checks arguments, then calls one implementation."""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kernels import _checks
from ttt_kernels.attention.impl import flash, reference
from ttt_kernels.attention.types import KeyValues, Rope

__all__ = ["KeyValues", "Rope", "attention"]

_IMPLS = ("reference", "flash", "triton")


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    window: int | None = None,
    start: int | Tensor = 0,
    prefix: KeyValues | None = None,
    sinks: KeyValues | None = None,
    rope: Rope | None = None,
    scale: float | None = None,
    prefix_grad: bool = True,
    impl: str = "auto",
) -> Tensor:
    """Causal attention of a chunk of queries over the keys before it; the maths is in the README beside this file.

    Args:
        q: [B, Hq, T, D], before RoPE.
        k, v: [B, Hkv, T, D] of the same tokens; k before RoPE; Hq is a multiple of Hkv.
        window: keys that a query sees, itself included; None is all before it.
        start: position of the first query, or an int64 tensor [B] with one per sequence. Prefix rows that would
            stand before position 0 are not seen.
        prefix: keys and values of the P positions before `start`, [B, Hkv, P, D].
        sinks: keys and values of positions 0..S-1, [B, Hkv, S, D]; seen from distance min(p - s, window). A sink is
            never counted a second time as a key of the window.
        rope: tables that cover every position; None leaves q and k as they are.
        scale: of the scores; 1/sqrt(D) by default.
        prefix_grad: False spares "triton" the prefix's gradient while a derivative is itself recorded
            (`create_graph=True`), where it is then None: the inner step's weights do not reach the prefix. Any other
            backward pass yields it as ever.
        impl: "reference" (any dtype, any order of derivative), "flash" (CPU; first derivative only), "triton" (CUDA;
            16-bit or float32, D up to 128, two derivatives), or "auto": triton for what it takes, else the reference.

    Returns:
        [B, Hq, T, D] in q's dtype. Softmax in fp32, or float64 for float64 inputs.

    Raises:
        ValueError: an argument's shape, dtype, device or value does not fit; the message names it.
    """
    fits = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16, torch.float32) and q.shape[-1] <= 128
    chosen = _checks.choose(impl, _IMPLS, "triton" if fits else "reference")
    _check(q, k, v, window, start, prefix, sinks, rope)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    if chosen == "triton":
        from ttt_kernels.attention.impl import triton

        return triton.attention(
            q, k, v, window=window, start=start, prefix=prefix, sinks=sinks, rope=rope, scale=scale,
            prefix_grad=prefix_grad,
        )  # fmt: skip
    plain = flash.attention if chosen == "flash" else reference.attention
    return plain(q, k, v, window=window, start=start, prefix=prefix, sinks=sinks, rope=rope, scale=scale)


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    window: int | None,
    start: int | Tensor,
    prefix: KeyValues | None,
    sinks: KeyValues | None,
    rope: Rope | None,
) -> None:
    _checks.shape("q", q, ("B", "Hq", "T", "D"))
    _checks.floating("q", q)
    batch, q_heads, length, width = q.shape
    _checks.shape("k", k, (batch, "Hkv", length, width))
    heads = k.shape[1]
    if not heads or q_heads % heads:
        raise ValueError(f"k has shape {list(k.shape)}, expected a number of heads that divides q's {q_heads}")
    pairs = {"": KeyValues(k, v), "prefix.": prefix, "sinks.": sinks}
    for name, pair in pairs.items():
        if pair is None:
            continue
        count = length if not name else "P" if name == "prefix." else "S"
        _checks.shape(f"{name}k", pair.k, (batch, heads, count, width))
        _checks.shape(f"{name}v", pair.v, tuple(pair.k.shape))
        _checks.same_kind(f"{name}k", pair.k, "q", q)
        _checks.same_kind(f"{name}v", pair.v, "q", q)
    sink_count = 0 if sinks is None else sinks.k.shape[2]
    _check_window(window, sink_count)
    if isinstance(start, Tensor):
        _checks.shape("start", start, (batch,))
        if start.is_floating_point():
            raise ValueError(f"start has dtype {start.dtype}, expected an integer one")
        if batch and not start.is_cuda and int(start.min()) < 0:
            raise ValueError(f"start has {int(start.min())} in it, expected positions from 0")
    elif start < 0:
        raise ValueError(f"start is {start}, expected a position from 0")
    if rope is not None:
        _checks.shape("rope.cos", rope.cos, ("N", width // 2))
        _checks.shape("rope.sin", rope.sin, tuple(rope.cos.shape))
        if width % 2:
            raise ValueError(f"q has shape {list(q.shape)}, expected an even width D for RoPE")
        if isinstance(start, Tensor) and start.is_cuda:
            # Waiting for the number would stall every call; the device stops at the bad one instead.
            torch._assert_async((start.max() + length <= rope.cos.shape[0]) & (start.min() >= 0))
        elif batch and rope.cos.shape[0] < (last := int(torch.as_tensor(start).max())) + length:
            raise ValueError(
                f"rope.cos has shape {list(rope.cos.shape)}, expected at least {last + length} rows "
                f"for {length} queries from position {last}"
            )


def _check_window(window: int | None, sinks: int) -> None:
    if window is None:
        return
    if isinstance(window, bool) or not isinstance(window, int):
        raise ValueError(f"window is {window!r}, expected a number of keys or None")  # noqa: TRY004
    if window <= sinks:
        raise ValueError(f"window is {window}, expected more than the {sinks} sinks")
