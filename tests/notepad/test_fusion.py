"""Fusion: bounded, steady, and no worse for what is better."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttt_memory.notepad.fusion import DOCUMENTS, ONE_STEP, TALK, TWO_STEPS, Signals, final, fuse, shares


def signals(seed: int, count: int) -> Signals:
    draw = np.random.default_rng(seed)
    late = draw.random(count)
    late[draw.random(count) < 0.3] = np.nan
    return Signals(
        meaning=draw.random(count) * 2 - 1,
        late=late,
        words=draw.random(count) * 20,
        beside=draw.random(count) * 20,
        named=draw.random(count),
        by_model=draw.random(count) < 0.5,
        line=draw.random(count),
        standing=draw.random(count) < 0.2,
        like=draw.random(count) * 2 - 1,
        fresh=draw.random(count),
        names=draw.random(count),
    )


@given(st.integers(0, 10_000), st.integers(0, 40), st.floats(0, 1), st.integers(1, 12))
@settings(max_examples=80, deadline=None)
def test_scores_are_between_0_and_1(seed: int, count: int, talk: float, terms: int) -> None:
    scores = fuse(signals(seed, count), shares(talk, terms))
    assert scores.shape == (count,)
    assert ((scores >= 0) & (scores <= 1 + 1e-9)).all()


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_the_order_of_candidates_changes_nothing(seed: int, count: int) -> None:
    given_, order = signals(seed, count), np.random.default_rng(seed).permutation(count)
    shuffled = Signals(**{name: values[order] for name, values in vars(given_).items()})
    assert fuse(shuffled, TALK) == pytest.approx(fuse(given_, TALK)[order])


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_what_names_the_writer_rises(seed: int, count: int) -> None:
    plain = replace(signals(seed, count), named=np.zeros(count))
    named = plain.named.copy()
    named[0] = 1.0
    assert fuse(replace(plain, named=named), DOCUMENTS)[0] >= fuse(plain, DOCUMENTS)[0]


def test_without_token_vectors_meaning_stands_in() -> None:
    some = signals(3, 9)
    nothing = replace(some, late=np.full(9, np.nan))
    as_meaning = replace(some, late=some.meaning)
    assert fuse(nothing, TALK) == pytest.approx(fuse(as_meaning, TALK))


def test_shares_lie_between_those_of_documents_and_talk() -> None:
    assert shares(0, TWO_STEPS) == DOCUMENTS
    assert shares(1, TWO_STEPS) == shares(1, 1) == TALK
    for value, one, other in zip(shares(0.5, TWO_STEPS), DOCUMENTS, TALK, strict=True):
        assert min(one, other) <= value <= max(one, other)


def test_a_short_query_follows_no_leads_among_documents() -> None:
    assert shares(0, ONE_STEP) == DOCUMENTS.first()
    names = [shares(0, terms).names for terms in range(1, 12)]
    assert names == sorted(names)


@given(st.integers(0, 10_000), st.integers(2, 30))
@settings(max_examples=60, deadline=None)
def test_what_is_standing_rises_the_more_the_liker_it_is(seed: int, count: int) -> None:
    plain = replace(signals(seed, count), standing=np.zeros(count, bool))
    rise = fuse(replace(plain, standing=np.ones(count, bool)), TALK) - fuse(plain, TALK)
    assert (rise >= 0).all()
    assert rise[np.argsort(plain.meaning)] == pytest.approx(np.sort(rise))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(1, 20), st.floats(0, 1))
def test_exact_comes_before_similar(fused: float, sentence: float, terms: int, talk: float) -> None:
    share = shares(talk, terms)
    similar = final(fused, min(sentence, 0.99), 0.0, share, terms=terms)
    assert similar <= 1
    assert final(0.0, 0.0, 0.01, share, terms=terms) > similar
    assert terms == 1 or final(0.0, 1.0, 0.0, share, terms=terms) > similar
