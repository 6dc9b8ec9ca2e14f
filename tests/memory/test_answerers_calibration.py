"""The numbers in the code are those of the measurement; the measurement's arithmetic is right."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_memory.answerers import calibration

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def result():
    return json.loads((ROOT / "benchmarks/results/answers.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def fit():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        return importlib.import_module("answers_fit")


@pytest.mark.parametrize(("name", "logistic"), [("quote", "QUOTE"), ("claim", "CLAIM"), ("written", "WRITTEN")])
def test_the_committed_numbers_are_the_measured_ones(result, name, logistic):
    fitted, used = result["calibration"][name], getattr(calibration, logistic)
    assert (used.bias, dict(used.weights)) == (fitted["bias"], fitted["weights"])


def test_the_threshold_is_the_measured_one(result):
    assert result["claims"]["supported_at"] == calibration.SUPPORTED_AT


def test_calibration_is_better_than_what_it_replaced(result):
    for name in ("quote", "claim"):
        fitted = result["calibration"][name]
        assert fitted["after, on groups not fitted"]["ece"] < fitted["before"]["ece"]


def test_written_answers_are_as_often_right_as_is_said(result):
    """A local model writes too slowly for a sample that could tell two fits apart; this one is held to itself."""
    assert result["calibration"]["written"]["after, on groups not fitted"]["ece"] < 0.05


def test_extracts_hold_the_answer_as_often_as_promised(result):
    assert result["quotes"]["quote_holds_the_answer"] >= result["quotes"]["target"] == 0.8


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3))
def test_confidence_is_a_probability(bias, signal):
    assert 0 <= calibration.Logistic(bias, {"x": 1.0})({"x": signal, "other": math.nan}) <= 1


def test_a_fit_recovers_what_made_the_sample(fit):
    draw = np.random.default_rng(0)
    features = draw.normal(size=(20_000, 2))
    right = (draw.random(20_000) < fit.probability(np.array([-0.5, 2.0, -1.0]), features)).astype(float)
    found = fit.fit(features, right, np.ones(20_000))
    np.testing.assert_allclose(found, [-0.5, 2.0, -1.0], atol=0.1)
    said = fit.out_of_fold(features, right, np.ones(20_000), [n % 5 for n in range(20_000)])
    assert fit.reliability(said, right, np.ones(20_000))["ece"] < 0.02
    assert fit.reliability(said**3, right, np.ones(20_000))["ece"] > 0.05


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.booleans(), st.integers(1, 3)), min_size=2, max_size=40))
def test_auroc_is_the_share_of_pairs_in_order(fit, rows):
    scores, right, weights = (np.array(column, float) for column in zip(*rows, strict=True))
    pairs = [
        (w1 * w0, (s1 > s0) + (s1 == s0) / 2)
        for s1, r1, w1 in zip(scores, right, weights, strict=True)
        for s0, r0, w0 in zip(scores, right, weights, strict=True)
        if r1 and not r0
    ]
    expected = sum(w * v for w, v in pairs) / sum(w for w, _ in pairs) if pairs else 0.5
    assert fit.auroc(scores, right, weights) == pytest.approx(expected)
