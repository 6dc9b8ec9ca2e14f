"""Fast weights: the whole learned state of one memory, as an immutable value."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ttt_memory.errors import ModelFormatError

_PARTS = ("gate", "up", "down")


@dataclass(frozen=True)
class FastWeights:
    """Dynamic SwiGLU weights of every dynamic layer, first dynamic block first.

    Attributes:
        gate, up: one [F, D] tensor per dynamic layer, fp32 masters (F dynamic width, D hidden size).
        down: one [D, F] tensor per dynamic layer.

    The tensors are never written in place by this package, so states may share them.
    """

    gate: tuple[Tensor, ...]
    up: tuple[Tensor, ...]
    down: tuple[Tensor, ...]

    def __post_init__(self) -> None:
        if not len(self.gate) == len(self.up) == len(self.down):
            raise ModelFormatError(
                "Fast weights need one gate, up and down per layer.",
                why=f"{len(self.gate)} gate, {len(self.up)} up, {len(self.down)} down",
            )

    def __len__(self) -> int:
        return len(self.gate)

    def named(self) -> Iterator[tuple[str, Tensor]]:
        """Canonical names and tensors in canonical order: `00.gate`, `00.up`, `00.down`, `01.gate`, ..."""
        for layer in range(len(self)):
            for part in _PARTS:
                yield f"{layer:02d}.{part}", getattr(self, part)[layer]

    def tensors(self) -> dict[str, Tensor]:
        """Mapping of canonical names to tensors, in canonical order."""
        return dict(self.named())

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> FastWeights:
        """Inverse of `tensors`, whatever the mapping's order. Raises ModelFormatError on missing or unknown names."""
        layers = len(tensors) // len(_PARTS)
        expected = {f"{layer:02d}.{part}" for layer in range(layers) for part in _PARTS}
        if set(tensors) != expected:
            raise ModelFormatError(
                "These tensors are not a set of fast weights.",
                why=f"missing {sorted(expected - set(tensors))}, unknown {sorted(set(tensors) - expected)}",
            )
        parts = {part: tuple(tensors[f"{layer:02d}.{part}"] for layer in range(layers)) for part in _PARTS}
        return cls(**parts)

    def digest(self) -> str:
        """SHA-256 (hex) over names, shapes and the little-endian fp32 bytes in canonical order."""
        sha = hashlib.sha256()
        for name, tensor in self.named():
            array = tensor.detach().to("cpu", torch.float32).contiguous().numpy()
            sha.update(f"{name}:{'x'.join(map(str, array.shape))};".encode())
            sha.update(array.astype("<f4", copy=False).data.cast("B"))
        return sha.hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes held by the tensors."""
        return sum(tensor.numel() * tensor.element_size() for _, tensor in self.named())

    def is_finite(self) -> bool:
        """True if no entry is NaN or infinite."""
        return all(bool(torch.isfinite(tensor).all()) for _, tensor in self.named())

    def distance(self, other: FastWeights) -> float:
        """L2 distance over all entries. Raises ModelFormatError if the shapes differ."""
        if [(n, t.shape) for n, t in self.named()] != [(n, t.shape) for n, t in other.named()]:
            raise ModelFormatError("Fast weights of different models have no distance.")
        squares = (
            float(torch.linalg.vector_norm((a - b).detach(), dtype=torch.float64)) ** 2
            for (_, a), (_, b) in zip(self.named(), other.named(), strict=True)
        )
        return math.sqrt(sum(squares))

    def detach(self) -> FastWeights:
        """The same values outside any autograd graph."""
        return FastWeights.from_tensors({name: tensor.detach() for name, tensor in self.named()})
