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


QUOTE = Logistic(-3.8179, {"similarity": 4.3716, "overlap": 1.8626, "margin": 0.526})
"""That the quoted sentences hold the answer."""

WRITTEN = Logistic(-2.4086, {"support": 0.5373, "quote": 0.9425})
"""That an answer written by the local model holds the answer."""

CLAIM = Logistic(-4.3158, {"overlap": 4.9219, "similarity": 1.6458})
"""That a claim says what the passages say, names and numbers aside."""

SUPPORTED_AT = 0.4
"""A claim of this score is supported."""
