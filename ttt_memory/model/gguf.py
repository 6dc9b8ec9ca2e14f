"""GGUF files: a bounds-checked reader of metadata and tensors.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little endian). Nothing is trusted:
every count and offset is compared with the bytes that are there before anything is allocated.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.gguf_quants import QUANTS, dequantise

_MAGIC = b"GGUF"
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?", 10: "<Q", 11: "<q", 12: "<d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 16


@dataclass(frozen=True)
class TensorInfo:
    """Where a tensor lies: `shape` is PyTorch's order (GGUF stores the fastest axis first), `offset` is absolute."""

    shape: tuple[int, ...]
    quant: int
    offset: int
    bytes: int


class GGUFFile:
    """A GGUF file, memory-mapped.

    Attributes:
        metadata: keys to numbers, strings, booleans, lists of strings, or arrays of numbers.
        tensors: names to `TensorInfo`.

    Raises ModelFormatError if the file is not GGUF, is cut short, or uses a number format this reader does not know.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                self._data = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        except (OSError, ValueError) as error:
            raise ModelFormatError(f"Cannot read the GGUF file {path}.", why=str(error), path=str(path)) from error
        self._position = 0
        try:
            self.metadata, self.tensors = self._read_header()
        except (UnicodeDecodeError, struct.error, RecursionError) as error:
            raise self._bad(str(error)) from error

    def tensor(self, name: str) -> np.ndarray:
        """Dequantised values, fp32, in PyTorch's axis order. Raises ModelFormatError if there is no such tensor."""
        if (info := self.tensors.get(name)) is None:
            raise self._bad(f"there is no tensor {name!r}")
        raw = np.frombuffer(self._data, np.uint8, count=info.bytes, offset=info.offset)
        return dequantise(raw, info.quant).reshape(info.shape)

    def _read_header(self) -> tuple[dict[str, Any], dict[str, TensorInfo]]:
        if self._take(4) != _MAGIC:
            raise self._bad("it does not begin with 'GGUF'")
        version = self._number("<I")
        if version not in (2, 3):
            raise self._bad(f"version {version} (2 and 3 are known; big-endian files are not)")
        tensor_count, pair_count = self._number("<Q"), self._number("<Q")
        self._room(tensor_count, 24, "tensors")
        self._room(pair_count, 12, "metadata entries")
        metadata: dict[str, Any] = {}
        for _ in range(pair_count):
            key = self._string()
            metadata[key] = self._value(self._number("<I"), depth=0)
        infos = [self._tensor_info() for _ in range(tensor_count)]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT:
            raise self._bad(f"alignment {alignment!r}")
        start = -(-self._position // alignment) * alignment
        tensors: dict[str, TensorInfo] = {}
        for name, shape, quant, offset in infos:
            if name in tensors:
                raise self._bad(f"two tensors are called {name!r}")
            tensors[name] = self._locate(name, shape, quant, start + offset)
        return metadata, tensors

    def _tensor_info(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._string(), self._number("<I")
        if dimensions > _MAX_DIMENSIONS:
            raise self._bad(f"tensor {name!r} has {dimensions} dimensions")
        shape = tuple(self._number("<Q") for _ in range(dimensions))
        return name, shape[::-1], self._number("<I"), self._number("<Q")

    def _locate(self, name: str, shape: tuple[int, ...], quant: int, offset: int) -> TensorInfo:
        if (layout := QUANTS.get(quant)) is None:
            known = ", ".join(q.name for q in QUANTS.values())
            raise self._bad(f"tensor {name!r} has the number format {quant}; known are {known}")
        elements = 1
        for length in shape:
            elements *= length
        if shape and shape[-1] % layout.block_elements:
            raise self._bad(f"rows of tensor {name!r} are no multiple of {layout.block_elements}")
        size = elements // layout.block_elements * layout.block_bytes
        if offset + size > len(self._data):
            raise self._bad(f"tensor {name!r} ends beyond the file")
        return TensorInfo(shape, quant, offset, size)

    def _value(self, kind: int, depth: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            return self._array(depth)
        if (layout := _SCALARS.get(kind)) is None:
            raise self._bad(f"metadata type {kind}")
        return self._number(layout)

    def _array(self, depth: int) -> list[Any] | np.ndarray:
        if depth > 2:
            raise self._bad("arrays nested too deeply")
        kind, count = self._number("<I"), self._number("<Q")
        if (layout := _SCALARS.get(kind)) is not None:
            size = struct.calcsize(layout)
            self._room(count, size, "array items")
            return np.frombuffer(self._take(count * size), np.dtype(layout))
        self._room(count, 8, "array items")
        return [self._value(kind, depth + 1) for _ in range(count)]

    def _string(self) -> str:
        return self._take(self._number("<Q")).decode("utf-8")

    def _number(self, layout: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout)))[0]

    def _take(self, count: int) -> bytes:
        self._room(count, 1, "bytes")
        begin, self._position = self._position, self._position + count
        return bytes(self._data[begin : self._position])

    def _room(self, count: int, size: int, what: str) -> None:
        if count * size > len(self._data) - self._position:
            raise self._bad(f"it announces {count} {what} at byte {self._position}, more than the file holds")

    def _bad(self, why: str) -> ModelFormatError:
        return ModelFormatError(
            f"{self.path} is not a GGUF file this package can read.",
            why=why,
            fix="Check that the download is complete and the model is of the Llama family.",
            path=str(self.path),
        )
