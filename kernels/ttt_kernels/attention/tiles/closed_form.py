"""The passes in plain PyTorch with materialised scores: what the kernels compute, line by line as in the README.

Legend: B batch, H key/value heads, G query heads per key/value head, T queries, N keys (prefix and chunk), D width.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ttt_kernels.attention.rotation import rotate
from ttt_kernels.attention.tiles.function import Grads, five
from ttt_kernels.attention.tiles.geometry import Geometry
from ttt_kernels.precision import compute_dtype

NOTHING = -1.0e30


class ClosedForm:
    """`Passes` by their formulae; float32 and float64."""

    def forward(
        self, q: Tensor, k: Tensor, v: Tensor, pk: Tensor | None, pv: Tensor | None, at: Geometry
    ) -> tuple[Tensor, Tensor]:
        """See `Passes.forward`."""
        qr, kr, values = _joined(q, k, v, pk, pv, at)
        scores, seen = _scores(qr, kr, at, k.shape[2])
        some = seen.any(-1)
        lse = torch.where(some, torch.logsumexp(scores, -1), NOTHING)
        p = torch.exp(scores - lse[..., None])
        return (p @ values).flatten(1, 2).to(q.dtype), lse.flatten(1, 2)

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
        q, k, v, pk, pv = five(inputs)
        qr, kr, values = _joined(q, k, v, pk, pv, at)
        scores, _ = _scores(qr, kr, at, k.shape[2])
        p = torch.exp(scores - _grouped(lse, k)[..., None])
        do, delta = _grouped(dout, k), _grouped((out * dout).sum(-1) - dlse, k)[..., None]
        ds = at.scale * p * (do @ values.mT - delta)
        dq = _turned((ds @ kr).flatten(1, 2), at, 0, -1)
        dk, dv = (ds.mT @ qr).sum(2), (p.mT @ do).sum(2)
        return (dq, *_split(dk, dv, k, at, keys, prefix))

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
        q, k, v, pk, pv = five(inputs)
        filled = (
            torch.zeros_like(x) if y is None and x is not None else y for x, y in zip(inputs, cotangents, strict=True)
        )
        ddq, ddk, ddv, ddpk, ddpv = five(tuple(filled))
        qr, kr, values = _joined(q, k, v, pk, pv, at)
        ddqr, ddkr, ddvs = _joined(ddq, ddk, ddv, ddpk, ddpv, at)
        scores, _ = _scores(qr, kr, at, k.shape[2])
        p = torch.exp(scores - _grouped(lse, k)[..., None])
        o, do = _grouped(out, k), _grouped(dout, k)
        delta = _grouped((out * dout).sum(-1) - dlse, k)[..., None]

        dds = at.scale * (ddqr @ kr.mT + qr @ ddkr.mT)
        dd = (p * dds).sum(-1, keepdim=True)
        ddo = p @ ddvs + (p * dds) @ values - dd * o
        offset = (do * ddo).sum(-1, keepdim=True) - delta * dd

        dp = do @ values.mT
        dp2 = do @ ddvs.mT + (dp - delta) * dds - dp * dd
        ds, ds2, ddp = at.scale * p * (dp - delta), at.scale * p * (dp2 - offset), p * (dds - dd)
        gq = _turned((ds @ ddkr + ds2 @ kr).flatten(1, 2), at, 0, -1)
        gk, gv = (ds.mT @ ddqr + ds2.mT @ qr).sum(2), (ddp.mT @ do).sum(2)
        return (gq, *_split(gk, gv, k, at, True, prefix), ddo.flatten(1, 2), dd[..., 0].flatten(1, 2))


def _grouped(x: Tensor, k: Tensor) -> Tensor:
    """[B, H * G, ...] as [B, H, G, ...]."""
    return x.reshape(x.shape[0], k.shape[1], -1, *x.shape[2:])


def _joined(
    q: Tensor, k: Tensor, v: Tensor, pk: Tensor | None, pv: Tensor | None, at: Geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """Rotated q [B, H, G, T, D]; rotated k and v [B, H, 1, N, D] with the prefix in front."""
    held = 0 if pk is None else pk.shape[2]
    if pk is not None and pv is not None:
        k, v = torch.cat((pk, k), dim=2), torch.cat((pv, v), dim=2)
    return _grouped(_turned(q, at, 0, 1), k), _turned(k, at, -held, 1)[:, :, None], v[:, :, None]


def _scores(q: Tensor, k: Tensor, at: Geometry, length: int) -> tuple[Tensor, Tensor]:
    """Masked, scaled scores [B, H, G, T, N] and what is seen [B, 1, 1, T, N]."""
    steps = torch.arange(k.shape[3], device=q.device) - (k.shape[3] - length)
    k_at = at.starts[:, None] + steps
    q_at = k_at[:, k.shape[3] - length :]
    seen = (k_at[:, None] <= q_at[..., None]) & (k_at[:, None] > q_at[..., None] - at.window)
    seen = (seen & (k_at >= at.oldest)[:, None])[:, None, None]
    scores = (q @ k.mT).to(compute_dtype(q.dtype)) * at.scale
    return scores.masked_fill(~seen, float("-inf")), seen


def _turned(x: Tensor, at: Geometry, shift: int, sign: int) -> Tensor:
    """[B, H, N, D] turned (sign 1) or turned back (-1) at starts + shift + row."""
    if at.cos is None or at.sin is None:
        return x
    rows = (at.starts[:, None] + shift + torch.arange(x.shape[2], device=x.device)).clamp(min=0)
    return rotate(x, at.cos[rows][:, None], sign * at.sin[rows][:, None], interleaved=at.paired)


def _split(dk: Tensor, dv: Tensor, k: Tensor, at: Geometry, keys: bool, prefix: bool) -> Grads:
    """Gradients of chunk and prefix out of those of all rotated keys [B, H, N, D]."""
    held = dk.shape[2] - k.shape[2]
    dk = _turned(dk, at, -held, -1)
    own = (dk[:, :, held:], dv[:, :, held:]) if keys else (None, None)
    return (*own, *((dk[:, :, :held], dv[:, :, :held]) if prefix else (None, None)))
