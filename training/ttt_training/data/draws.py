"""Random draws that are the same in every release of NumPy: raw bits of PCG64, whose stream is guaranteed."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


class Draws:
    """Draws of one place in a run, named by integers, for example (seed, epoch)."""

    def __init__(self, *place: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence(place))

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return float(self._bits.random_raw() >> 11) * 2.0**-53

    def below(self, count: int) -> int:
        """An integer in 0..count-1."""
        return int(self.uniform() * count)

    def log_uniform(self, low: int, high: int) -> int:
        """An integer in low..high, every doubling as likely as the next."""
        return min(high, max(low, round(math.exp(math.log(low) + self.uniform() * math.log(high / low)))))

    def permutation(self, count: int) -> NDArray[np.int64]:
        """0..count-1 in a random order."""
        bits = np.asarray(self._bits.random_raw(count), np.uint64) if count else np.zeros(0, np.uint64)
        return np.argsort(bits, kind="stable").astype(np.int64)
