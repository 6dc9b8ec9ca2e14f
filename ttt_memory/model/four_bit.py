"""Single-token products straight from four bits, for base weights that are four-bit numbers anyway.

Decoding is bound by the bytes of the weights. A matrix converted from a four-bit file holds, in every group of 32
columns of a row, at most 16 evenly spaced values `scale * q + offset` rounded to bf16. Where that can be verified,
products of one token read the four-bit form (a quarter of the bytes, about as exact as bf16); everywhere else bf16
stays. Reading and writing never use this form, so states do not depend on it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

GROUP = 32
_LEVELS = 15
_TOLERANCE = 2.0**-7
"""Largest misfit, relative to the group's largest magnitude: bf16 rounding of the weight, the scale and the offset."""

_pack = getattr(torch.ops.aten, "_convert_weight_to_int4pack_for_cpu", None)
_multiply = getattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu", None)


class FourBit(NamedTuple):
    """A [N, K] matrix in the layout of this machine's product.

    Attributes:
        packed: opaque, [N, K/2] uint8.
        scales: [K/32, N, 2] bf16: scale, and the value of q = 8.
    """

    packed: Tensor
    scales: Tensor

    def matvec(self, x: Tensor) -> Tensor:
        """W x for x [K] bf16."""
        assert _multiply is not None
        product: Tensor = _multiply(x[None], self.packed, GROUP, self.scales)[0]
        return product


def supported(weight: Tensor) -> bool:
    """Whether this machine and matrix can use four bits at all."""
    return (
        _pack is not None
        and _multiply is not None
        and weight.device.type == "cpu"
        and weight.dtype == torch.bfloat16
        and weight.ndim == 2
        and weight.shape[0] % 64 == 0
        and weight.shape[1] % 64 == 0
    )


@torch.no_grad()
def derive(weight: Tensor) -> tuple[Tensor, Tensor] | None:
    """(q, scales) of a [N, K] bf16 matrix: nibbles [N, K/2] uint8, even columns low, and scales as in FourBit.

    None unless every group lies on 16 evenly spaced values within bf16 rounding.
    """
    if not supported(weight):
        return None
    rows, columns = weight.shape
    groups = weight.float().view(rows, columns // GROUP, GROUP)
    low, high = groups.amin(-1, keepdim=True), groups.amax(-1, keepdim=True)
    step = (high - low) / _LEVELS
    q = ((groups - low) / torch.where(step > 0, step, torch.ones_like(step))).round_().sub_(8)
    # Least squares: the ends of the range alone carry their own rounding into every level.
    centred = q - q.mean(-1, keepdim=True)
    spread = centred.square().sum(-1, keepdim=True)
    fitted = torch.where(spread > 0, (centred * groups).sum(-1, keepdim=True) / spread.clamp(min=1e-9), step)
    scale = fitted.bfloat16()
    middle = (groups.mean(-1, keepdim=True) - scale.float() * q.mean(-1, keepdim=True)).bfloat16()
    misfit = (q * scale.float()).add_(middle.float()).sub_(groups).abs_().amax(-1, keepdim=True)
    if bool((misfit > _TOLERANCE * torch.maximum(low.abs(), high.abs())).any()):
        return None
    nibbles = q.add_(8).view(rows, columns).to(torch.uint8)
    scales = torch.cat((scale, middle), dim=-1).transpose(0, 1).contiguous()
    return nibbles[:, 0::2] | (nibbles[:, 1::2] << 4), scales


def pack(nibbles: Tensor, scales: Tensor) -> FourBit:
    """The form that this machine multiplies with, of what `derive` gave."""
    assert _pack is not None
    q = torch.stack((nibbles & 15, nibbles >> 4), dim=-1).flatten(1).int()
    return FourBit(_pack(q, 1), scales)


def four_bit_forms(parameters: Iterable[tuple[str, Tensor]]) -> dict[str, FourBit]:
    """The matrices that have a four-bit form, by name; about 2 seconds for 100 million weights."""
    derived = ((name, derive(parameter)) for name, parameter in parameters)
    return {name: pack(*found) for name, found in derived if found is not None}
