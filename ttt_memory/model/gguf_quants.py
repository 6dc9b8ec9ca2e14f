"""Dequantisation of GGUF tensors in numpy, bit-equal to the format's reference.

Layouts: https://github.com/ggml-org/ggml/blob/master/src/ggml-common.h. A tensor is a row of blocks; each function
takes the blocks as uint8 [N, block_bytes] and gives fp32 [N, block_elements].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Quant:
    """One number format: its blocks and how to read them."""

    name: str
    block_elements: int
    block_bytes: int
    read: Callable[[Bytes], Floats]


def _half(blocks: Bytes) -> Floats:
    """Little-endian fp16 in the last axis, as fp32."""
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes) -> Bytes:
    """[N, B] bytes to [N, 2B]: all low halves, then all high halves."""
    return np.concatenate([packed & 0x0F, packed >> 4], axis=-1)


def _bits(packed: Bytes) -> Bytes:
    """[N, 4] bytes to [N, 32] bits, lowest first."""
    return np.unpackbits(packed, axis=-1, bitorder="little")


def _f32(blocks: Bytes) -> Floats:
    return np.ascontiguousarray(blocks).view("<f4").astype(np.float32)


def _bf16(blocks: Bytes) -> Floats:
    return (np.ascontiguousarray(blocks).view("<u2").astype(np.uint32) << 16).view(np.float32)


def _q4_0(blocks: Bytes) -> Floats:
    return _half(blocks[:, :2]) * (_nibbles(blocks[:, 2:]).astype(np.int8) - np.int8(8)).astype(np.float32)


def _q4_1(blocks: Bytes) -> Floats:
    return _half(blocks[:, :2]) * _nibbles(blocks[:, 4:]).astype(np.float32) + _half(blocks[:, 2:4])


def _q5_0(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 6:]) | (_bits(blocks[:, 2:6]) << 4)
    return _half(blocks[:, :2]) * (values.astype(np.int8) - np.int8(16)).astype(np.float32)


def _q5_1(blocks: Bytes) -> Floats:
    values = _nibbles(blocks[:, 8:]) | (_bits(blocks[:, 4:8]) << 4)
    return _half(blocks[:, :2]) * values.astype(np.float32) + _half(blocks[:, 2:4])


def _q8_0(blocks: Bytes) -> Floats:
    return _half(blocks[:, :2]) * np.ascontiguousarray(blocks[:, 2:]).view(np.int8).astype(np.float32)


def _k_scales(packed: Bytes) -> tuple[Floats, Floats]:
    """The 12 bytes of a K-block hold 8 scales and 8 minima of 6 bits each; both as fp32 [N, 8]."""
    low, middle, high = packed[:, 0:4], packed[:, 4:8], packed[:, 8:12]
    scales = np.concatenate([low & 0x3F, (high & 0x0F) | ((low >> 2) & 0x30)], axis=-1)
    minima = np.concatenate([middle & 0x3F, (high >> 4) | ((middle >> 2) & 0x30)], axis=-1)
    return scales.astype(np.float32), minima.astype(np.float32)


def _k_nibbles(packed: Bytes) -> Bytes:
    """[N, 128] bytes to [N, 8, 32]: each 32 bytes hold two groups, low halves first."""
    groups = packed.reshape(-1, 4, 1, 32) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    return np.asarray((groups & 0x0F).reshape(-1, 8, 32), np.uint8)


def _q4_k(blocks: Bytes) -> Floats:
    scales, minima = _k_scales(blocks[:, 4:16])
    scale, minimum = _half(blocks[:, 0:2]) * scales, _half(blocks[:, 2:4]) * minima
    values = _k_nibbles(blocks[:, 16:]).astype(np.float32)
    return (scale[:, :, None] * values - minimum[:, :, None]).reshape(-1, 256)


def _q5_k(blocks: Bytes) -> Floats:
    scales, minima = _k_scales(blocks[:, 4:16])
    scale, minimum = _half(blocks[:, 0:2]) * scales, _half(blocks[:, 2:4]) * minima
    fifth = (blocks[:, None, 16:48] >> np.arange(8, dtype=np.uint8).reshape(1, 8, 1)) & 1
    values = (_k_nibbles(blocks[:, 48:]) | (fifth << 4)).astype(np.float32)
    return (scale[:, :, None] * values - minimum[:, :, None]).reshape(-1, 256)


def _q6_k(blocks: Bytes) -> Floats:
    low = blocks[:, :128].reshape(-1, 2, 1, 64) >> np.array([0, 4], np.uint8).reshape(1, 1, 2, 1)
    high = blocks[:, 128:192].reshape(-1, 2, 1, 32) >> np.array([0, 2, 4, 6], np.uint8).reshape(1, 1, 4, 1)
    values = (low & 0x0F).reshape(-1, 8, 32) | ((high & 3) << 4).reshape(-1, 8, 32)
    centred = (values.astype(np.int8) - np.int8(32)).reshape(-1, 16, 16).astype(np.float32)
    scales = np.ascontiguousarray(blocks[:, 192:208]).view(np.int8).astype(np.float32)
    return ((_half(blocks[:, 208:210]) * scales)[:, :, None] * centred).reshape(-1, 256)


QUANTS: dict[int, Quant] = {
    0: Quant("F32", 1, 4, _f32),
    1: Quant("F16", 1, 2, _half),
    2: Quant("Q4_0", 32, 18, _q4_0),
    3: Quant("Q4_1", 32, 20, _q4_1),
    6: Quant("Q5_0", 32, 22, _q5_0),
    7: Quant("Q5_1", 32, 24, _q5_1),
    8: Quant("Q8_0", 32, 34, _q8_0),
    12: Quant("Q4_K", 256, 144, _q4_k),
    13: Quant("Q5_K", 256, 176, _q5_k),
    14: Quant("Q6_K", 256, 210, _q6_k),
    30: Quant("BF16", 1, 2, _bf16),
}
"""Number formats by the type id of the file."""

_ROWS = 1 << 16


def dequantise(raw: Bytes, quant: int) -> Floats:
    """Values of whole blocks. raw: uint8 [n * block_bytes]; returns fp32 [n * block_elements]."""
    layout = QUANTS[quant]
    blocks = raw.reshape(-1, layout.block_bytes)
    values = np.empty((len(blocks), layout.block_elements), np.float32)
    for begin in range(0, len(blocks), _ROWS):
        part = slice(begin, begin + _ROWS)
        with np.errstate(all="ignore"):  # hostile files may hold infinities; the model's loader refuses them
            values[part] = layout.read(blocks[part])
    return values.reshape(-1)
