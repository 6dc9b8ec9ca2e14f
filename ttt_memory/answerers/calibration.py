"""From signals to probabilities. The numbers are those of benchmarks/results/answers.json; a test compares."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Logistic:
    """A logistic regression: `1 / (1 + exp(-(bias + sum of weight * signal)))`."""

    bias: float
    weights: Mapping[str, float]

    def __call__(self, signals: Mapping[str, float]) -> float:
        """Probability, 0 to 1, of signals named as the weights are."""
        z = math.fsum((self.bias, *(weight * signals[name] for name, weight in self.weights.items())))
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, z))))


QUOTE = Logistic(-3.3558, {"similarity": 2.2886, "overlap": 2.3714, "margin": 0.0219})
"""That the quoted sentences hold the answer."""

WRITTEN = Logistic(-2.6255, {"support": 1.0995, "quote": 0.9146})
"""That an answer written by the local model holds the answer."""

CLAIM = Logistic(-4.4796, {"overlap": 4.7989, "similarity": 2.1617})
"""That a claim says what the passages say, names and numbers aside."""

SUPPORTED_AT = 0.4
"""A claim of this score is supported."""
