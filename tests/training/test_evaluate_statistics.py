"""The paired bootstrap's laws, and the numbers that a table is made of."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ttt_training.evaluate.answering import token_f1
from ttt_training.evaluate.bootstrap import every_pair, paired
from ttt_training.evaluate.compare import BIN, EARLY, binned
from ttt_training.evaluate.targets import answering_targets, drift_targets, specificity_targets, targets

from ttt_memory.errors import InvalidInputError

ROWS = st.lists(st.floats(-5, 5, allow_subnormal=False), min_size=2, max_size=12).map(np.array)


@settings(max_examples=40, deadline=None)
@given(ROWS, st.floats(-3, 3), st.floats(0.1, 4))
def test_an_interval_moves_and_scales_with_the_differences(row: np.ndarray, shift: float, scale: float) -> None:
    plain, moved = paired(row, draws=400), paired(row * scale + shift, draws=400)
    ours = np.array([plain.mean, plain.low, plain.high]) * scale + shift
    np.testing.assert_allclose([moved.mean, moved.low, moved.high], ours, atol=1e-9)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_the_other_way_round_is_the_mirrored_interval(row: np.ndarray) -> None:
    one, other = paired(row, draws=401), paired(-row, draws=401)
    np.testing.assert_allclose([other.mean, other.low, other.high], [-one.mean, -one.high, -one.low], atol=1e-12)


@settings(max_examples=40, deadline=None)
@given(ROWS)
def test_an_interval_lies_within_the_differences_and_a_higher_level_is_wider(row: np.ndarray) -> None:
    narrow, wide = paired(row, draws=400, level=0.5), paired(row, draws=400, level=0.99)
    assert row.min() - 1e-12 <= wide.low <= narrow.low <= narrow.high <= wide.high <= row.max() + 1e-12


def test_one_document_has_no_interval_and_none_is_an_error() -> None:
    alone = paired(np.array([0.3]))
    assert (alone.mean, alone.low, alone.high, alone.above_zero) == (0.3, None, None, False)
    for bad in (np.zeros(0), np.array([0.1, np.nan]), np.zeros((2, 2))):
        with pytest.raises(InvalidInputError):
            paired(bad)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    """60 documents, so that the percentile interval's known shortness for few of them does not matter."""
    random = np.random.default_rng(3)
    held = 0
    for _ in range(300):
        found = paired(random.normal(0.5, 1.0, 60), draws=500)
        held += found.low <= 0.5 <= found.high
    assert 0.90 <= held / 300 <= 0.985


def test_every_two_names_are_compared_once_document_by_document() -> None:
    values = {"a": {"mean": [3.0, 5.0]}, "b": {"mean": [2.0, 4.0]}, "c": {"mean": [3.5, 5.5]}}
    found = every_pair(values)
    assert {(a, b) for a, others in found.items() for b in others} == {("a", "b"), ("a", "c"), ("b", "c")}
    # Documents differ by 2, the names by a constant: pairing leaves no width.
    assert found["a"]["b"]["mean"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert found["b"]["c"]["mean"]["mean"] == -1.5


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(0, BIN - 1), st.integers(0, 2**31))
def test_bins_and_means_are_those_of_the_tokens(whole: int, rest: int, seed: int) -> None:
    nats = np.random.default_rng(seed).random(whole * BIN + rest).astype(np.float32)
    found = binned(nats)
    assert len(found["bins"]) == whole + bool(rest)
    sizes = [BIN] * whole + ([rest] if rest else [])
    assert np.average(found["bins"], weights=sizes) == pytest.approx(found["mean"])
    late = found["mean_after_4096"]
    assert late == (pytest.approx(float(nats[EARLY:].astype(float).mean())) if len(nats) > EARLY else None)


def test_token_f1_is_squads() -> None:
    assert token_f1("The Norman dukes.", "norman dukes") == 1.0
    assert token_f1("in 1066", "1066") == pytest.approx(2 / 3)
    assert token_f1("Paris", "London") == 0.0
    assert token_f1("", "London") == 0.0
    assert token_f1("x b b", "b b c") == pytest.approx(2 * 2 / 6)


def result(bins: list[float], documents: int = 3) -> dict[str, object]:
    late = bins[EARLY // BIN :]
    rows = [{"mean": float(np.mean(bins)) + 0.1 * i} for i in range(documents)]
    return {"mean": np.mean(bins), "mean_after_4096": np.mean(late), "bins": bins, "documents": rows}


def test_targets_say_what_was_met_and_what_was_not() -> None:
    flat = [4.0] * 16
    good = {"swa": result(flat), "control": result([3.9] * 16), "ttt": result([3.9] + [3.8] * 15)}
    assert all(line.met for line in targets(good))
    fading = {"control": result(flat), "ttt": result([3.8] * 4 + [3.9] * 12)}
    assert [line.met for line in targets(fading)] == [True, True, False]
    worse_once = {"swa": result(flat), "ttt": result([4.02] + [3.5] * 15)}
    assert [line.met for line in targets(worse_once)] == [True, True, False]
    assert targets({"swa": result(flat)}) == []


def test_the_other_targets_too() -> None:
    def part(own: float, other: float) -> dict[str, object]:
        pairs = {"w0 - own": own, "other - own": own + other, "other - w0": other}
        return {pair: {"mean": mean, "low": mean - 0.01, "high": mean + 0.01} for pair, mean in pairs.items()}

    assert [t.met for t in specificity_targets({"later": part(0.03, 0.01), "again": part(0.36, 0.02)})] == [True] * 4
    assert [t.met for t in specificity_targets({"later": part(0.005, 0.03), "again": part(0.2, 0.0)})] == [
        *(False, True, False, False)
    ]
    assert [t.met for t in answering_targets({"base": 20.0, "w0": 18.5, "read": 15.0})] == [True, False]
    stops = [{"read": read, "rise": {"mean": mean}} for read, mean in ((0, 0.0), (1000, 0.01), (2000, 0.03))]
    assert [t.met for t in drift_targets(stops)] == [True, False]
