"""Paired bootstrap over documents: the only statistics that the evaluation makes claims with."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from ttt_memory.errors import InvalidInputError

DRAWS = 10_000
SEED = 20_261_122


@dataclass(frozen=True)
class Interval:
    """A mean difference and the percentile interval around it, in the unit of the differences.

    `low` and `high` are None for a single document: it says nothing about others.
    """

    mean: float
    low: float | None
    high: float | None

    @property
    def above_zero(self) -> bool:
        """Whether the whole interval is above 0."""
        return self.low is not None and self.low > 0

    def to_dict(self) -> dict[str, float | None]:
        """Plain JSON-able dictionary."""
        return {"mean": self.mean, "low": self.low, "high": self.high}


def paired(differences: np.ndarray, *, level: float = 0.95, draws: int = DRAWS, seed: int = SEED) -> Interval:
    """Percentile bootstrap of the mean of `differences` [N], one per document (a - b of the same document).

    For few documents it is too narrow: 95 % are 88 % for 8 documents of a normal population, 94 % for 36 (simulated).
    The same seed draws the same documents, so that two comparisons over the same documents can be set side by side.

    Raises:
        InvalidInputError: no differences, or one that is not finite.
    """
    values = np.asarray(differences, np.float64)
    if values.ndim != 1 or not len(values) or not np.isfinite(values).all():
        raise InvalidInputError("A bootstrap needs a row of finite differences.", why=f"shape {list(values.shape)}")
    if len(values) == 1:
        return Interval(float(values[0]), None, None)
    picks = np.random.default_rng(seed).integers(0, len(values), (draws, len(values)))
    low, high = np.quantile(values[picks].mean(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high))


def every_pair(values: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Intervals of a - b for every two names: `result[a][b][measure]`, a before b in `values`.

    Args:
        values: `values[name][measure]`, one number per document, in the same order of documents under every name.
    """
    return {
        a: {
            b: {
                measure: paired(np.subtract(values[a][measure], values[b][measure])).to_dict()
                for measure in values[a]
                if measure in values[b]
            }
            for first, b in combinations(values, 2)
            if first == a
        }
        for a in list(values)[:-1]
    }
