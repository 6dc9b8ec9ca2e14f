"""Where Triton kernels may run, shared by the `impl/triton.py` files."""

from __future__ import annotations

import os

import torch
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "on")
"""Triton reads the variable when a kernel is decorated, so it is read once here too."""

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def runnable(name: str, tensor: Tensor) -> None:
    """ValueError unless a Triton kernel gives right results for `tensor` here.

    The interpreter computes with the bit patterns of bfloat16, hence not with bfloat16.
    """
    if tensor.device.type != "cuda" and not (INTERPRETED and tensor.device.type == "cpu"):
        raise ValueError(
            f"{name} is on {tensor.device}, expected cuda for impl='triton' (or cpu with TRITON_INTERPRET=1)"
        )
    if tensor.is_cuda and tensor.device.index != torch.cuda.current_device():
        raise ValueError(
            f"{name} is on {tensor.device}, expected the current device, cuda:{torch.cuda.current_device()}"
        )
    valid = _DTYPES[:2] if INTERPRETED else _DTYPES
    if tensor.dtype not in valid:
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected {', '.join(map(str, valid))} for impl='triton'")


def power_of_two(size: int, least: int, most: int) -> int:
    """The power of two at or above `size`, within [least, most]."""
    return int(min(most, max(least, 1 << max(0, size - 1).bit_length())))
