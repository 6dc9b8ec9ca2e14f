"""Argument checks shared by the operations' `api.py`: a bad argument is a ValueError that names it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def choose(impl: str, available: Sequence[str], auto: str) -> str:
    """`impl`, or what `auto` stands for. ValueError listing the valid names otherwise."""
    if impl == "auto":
        return auto
    if impl not in available:
        raise ValueError(f"unknown impl {impl!r}; valid: {', '.join(repr(name) for name in ('auto', *available))}")
    return impl


def shape(name: str, tensor: Tensor, expected: Sequence[int | str]) -> None:
    """ValueError unless `tensor` has the expected dimensions; a string stands for any size and is printed as it is."""
    actual = tuple(tensor.shape)
    if actual == tuple(expected):
        return
    fits = len(actual) == len(expected) and all(
        isinstance(want, str) or want == have for want, have in zip(expected, actual, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(size) for size in expected)
        raise ValueError(f"{name} has shape {list(actual)}, expected [{wanted}]")


def floating(name: str, tensor: Tensor) -> None:
    """ValueError unless `tensor` holds floating-point numbers."""
    if not tensor.is_floating_point():
        raise ValueError(f"{name} has dtype {tensor.dtype}, expected a floating-point one")


def same_kind(name: str, tensor: Tensor, other_name: str, other: Tensor) -> None:
    """ValueError unless both tensors share dtype and device."""
    if tensor.dtype != other.dtype or tensor.device != other.device:
        raise ValueError(
            f"{name} is {tensor.dtype} on {tensor.device}, expected {other.dtype} on {other.device} like {other_name}"
        )


def auto(tensor: Tensor) -> str:
    """What `impl="auto"` stands for beside a Triton implementation: that on a CUDA device, in 16 or 32 bits."""
    return "triton" if tensor.is_cuda and tensor.dtype != torch.float64 else "reference"
