"""Logistic regression, reliability and discrimination, in NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
RIDGE = 1e-3
"""Penalty on the squared weights, as a share of the sample: keeps few samples from giving endless weights."""


def fit(features: Floats, right: Floats, weights: Floats, ridge: float = RIDGE) -> Floats:
    """Bias and weights [1 + D] of a logistic regression of `right` [N] on `features` [N, D], by Newton's method."""
    x = np.column_stack([np.ones(len(features)), features])
    penalty = ridge * weights.sum() * np.diag([0.0, *np.ones(features.shape[1])])
    solution = np.zeros(x.shape[1])
    for _ in range(50):
        p = probability(solution, features)
        gradient = x.T @ (weights * (p - right)) + penalty @ solution
        hessian = (x * (weights * p * (1 - p))[:, None]).T @ x + penalty
        step = np.linalg.solve(hessian, gradient)
        solution = solution - step
        if np.abs(step).max() < 1e-10:
            break
    return np.asarray(solution)


def probability(solution: Floats, features: Floats) -> Floats:
    """[N] probabilities."""
    return np.asarray(1 / (1 + np.exp(-np.clip(solution[0] + features @ solution[1:], -50, 50))))


def out_of_fold(
    features: Floats, right: Floats, weights: Floats, groups: Sequence[int], ridge: float = RIDGE
) -> Floats:
    """[N] probabilities, each from a fit that did not see its group."""
    found, owners = np.zeros(len(right)), np.asarray(groups)
    for group in np.unique(owners):
        out = owners == group
        found[out] = probability(fit(features[~out], right[~out], weights[~out], ridge), features[out])
    return found


def auroc(scores: Floats, right: Floats, weights: Floats) -> float:
    """Probability that a right answer scores above a wrong one; ties count half."""
    order = np.argsort(scores, kind="stable")
    scores, right, weights = scores[order], right[order], weights[order]
    below = total = 0.0
    at = 0
    while at < len(scores):
        end = int(np.searchsorted(scores, scores[at], side="right"))
        good = float((weights[at:end] * right[at:end]).sum())
        bad = float((weights[at:end] * (1 - right[at:end])).sum())
        total += good * (below + bad / 2)
        below += bad
        at = end
    pairs = float((weights * right).sum()) * below
    return total / pairs if pairs else 0.5


def reliability(confidence: Floats, right: Floats, weights: Floats, bins: int = 10) -> dict[str, Any]:
    """Expected calibration error over equal bins, and the bins: their share of the sample, mean confidence, and how
    often it was right."""
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    error = 0.0
    for number in range(bins):
        inside = place == number
        share = float(weights[inside].sum() / weights.sum())
        if not share:
            continue
        said = float(np.average(confidence[inside], weights=weights[inside]))
        was = float(np.average(right[inside], weights=weights[inside]))
        error += share * abs(said - was)
        bounds = [number / bins, (number + 1) / bins]
        rows.append({"bin": bounds, "share": round(share, 4), "said": round(said, 4), "right": round(was, 4)})
    return {"ece": round(error, 4), "bins": rows}


def calibration(
    signals: Sequence[Mapping[str, float]],
    names: Sequence[str],
    right: Sequence[bool],
    weights: Sequence[float],
    groups: Sequence[int],
    before: Sequence[float],
    ridge: float = RIDGE,
) -> dict[str, Any]:
    """Fit confidence on signals. `before` is the confidence there was without it; both are judged on the same sample,
    the fitted one by fits that did not see the group."""
    features = np.array([[row[name] for name in names] for row in signals])
    truth, weight, old = np.array(right, float), np.array(weights, float), np.clip(np.array(before, float), 0, 1)
    new = out_of_fold(features, truth, weight, groups, ridge)
    solution = fit(features, truth, weight, ridge)
    return {
        "samples": len(truth),
        "right": round(float(np.average(truth, weights=weight)), 4),
        "bias": round(float(solution[0]), 4),
        "weights": {name: round(float(value), 4) for name, value in zip(names, solution[1:], strict=True)},
        "auroc": {
            "before": round(auroc(old, truth, weight), 4),
            "after, on groups not fitted": round(auroc(new, truth, weight), 4),
        },
        "before": reliability(old, truth, weight),
        "after, on groups not fitted": reliability(new, truth, weight),
    }
