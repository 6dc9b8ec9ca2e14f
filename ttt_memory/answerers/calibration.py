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


QUOTE = Logistic(-3.4347, {"similarity": 2.3407, "overlap": 2.4434, "margin": 0.1832})
"""That the quoted sentences hold the answer."""

WRITTEN = Logistic(-2.5419, {"support": 0.2239, "quote": 0.8781})
"""That an answer written by the local model holds the answer."""

CLAIM = Logistic(-4.4075, {"overlap": 4.8087, "similarity": 2.0551})
"""That a claim says what the passages say, names and numbers aside."""

SUPPORTED_AT = 0.4
"""A claim of this score is supported."""
