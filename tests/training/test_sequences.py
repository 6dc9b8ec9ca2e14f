"""Training sequences: what the fold would read, the same everywhere, resumable at any number of ranks."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ttt_training.data.draws import Draws
from ttt_training.data.lives import Life, Lives
from ttt_training.data.sequences import Long, Mixture, Sequences
from ttt_training.data.shards import Shards

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.fold import segments
from ttt_memory.model.tiny import CONFIG

LENGTHS = st.lists(st.integers(1, 900), min_size=1, max_size=12)


def numbered(lengths, *, key="k", every=37, tokenizer="t"):
    """Shards whose ids are all different, so that an id tells the document and the place."""
    ends = np.cumsum(lengths, dtype=np.uint64)
    total = int(ends[-1])
    return Shards(
        folder=Path("nowhere"),
        key=key,
        tokenizer=tokenizer,
        vocab_size=total,
        line_ends=np.arange(0, total, every),
        lengths=np.array(lengths, np.int64),
        bad_records=(),
        _files=(np.arange(total, dtype=np.uint32),),
        _ends=(ends,),
    )


def document_of(shards, token):
    return int(np.searchsorted(np.cumsum(shards.lengths), token, side="right"))


def ids(sequence):
    return np.concatenate([segment.tokens for segment in sequence])


# ------------------------------------------------------------------ long documents


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.integers(1, 300), st.integers(0, 5), st.integers(0, 3))
def test_an_epoch_reads_every_piece_once(lengths, tokens, seed, epoch):
    shards = numbered(lengths)
    if max(lengths) < tokens:
        with pytest.raises(InvalidInputError):
            Long(shards, CONFIG, tokens=tokens)
        return
    source = Long(shards, CONFIG, tokens=tokens, seed=seed)
    assert source.epoch_length == sum(length // tokens for length in lengths)
    first = epoch * source.epoch_length
    read = [ids(source.sequence(i)) for i in range(first, first + source.epoch_length)]
    assert len(np.unique(np.concatenate(read))) == tokens * source.epoch_length
    for piece in read:
        assert np.array_equal(piece, np.arange(piece[0], piece[0] + tokens))
        assert document_of(shards, piece[0]) == document_of(shards, piece[-1])


def test_a_long_document_is_cut_as_the_fold_cuts_it():
    config = replace(CONFIG, segment_tokens=100, context_tokens=30)
    source = Long(numbered([1000]), config, tokens=450)
    for index in range(4):
        found = source.sequence(index)
        text = ids(found)
        expected = list(segments(text, text[:0], config, append=False))
        assert [len(s.tokens) for s in found] == [100, 100, 100, 100, 50]
        for ours, theirs in zip(found, expected, strict=True):
            assert np.array_equal(ours.context, theirs.context)
            assert np.array_equal(ours.tokens, theirs.tokens)


def test_epochs_and_seeds_have_orders_of_their_own():
    shards = numbered([5000])
    orders = [
        [int(ids(source.sequence(i + epoch * 50))[0]) // 100 for i in range(50)]
        for seed, epoch in ((0, 0), (0, 1), (1, 0))
        for source in (Long(shards, CONFIG, tokens=100, seed=seed),)
    ]
    assert all(sorted(order) != order for order in orders)
    assert orders[0] != orders[1] != orders[2] != orders[0]


# ------------------------------------------------------------------ memory-shaped


@settings(deadline=None, max_examples=40)
@given(LENGTHS, st.integers(1, 3000), st.integers(1, 4), st.floats(0, 1), st.integers(0, 50))
def test_a_life_is_read_as_the_fold_reads_it(lengths, tokens, documents, streams, index):
    shards = numbered(lengths)
    life = Life(tokens, documents=documents, streams=streams, part=(8, 200), append=(2, 60))
    found = Lives(shards, CONFIG, life, seed=3).sequence(index)
    assert sum(len(s.tokens) for s in found) == tokens
    for segment in found:
        assert 1 <= len(segment.tokens) <= CONFIG.segment_tokens
        both = np.concatenate((segment.context, segment.tokens))
        assert np.array_equal(both, np.arange(both[0], both[0] + len(both)))  # context is what stands before
        assert document_of(shards, both[0]) == document_of(shards, both[-1])
        assert len(segment.context) <= CONFIG.context_tokens
    if streams == 0:
        assert all(len(s.context) == 0 for s in found if len(s.tokens) <= 200)


def test_parts_of_one_source_come_back_after_others_and_appends_have_context():
    shards = numbered([50_000] * 6, every=40)
    life = Life(6000, documents=4, streams=0.5, part=(50, 400), append=(5, 60))
    returned = appended = 0
    for index in range(8):
        found = Lives(shards, CONFIG, life).sequence(index)
        where = [document_of(shards, s.tokens[0]) for s in found]
        changes = [a for a, b in zip(where, [*where[1:], -1], strict=True) if a != b]
        returned += len(changes) > len(set(where))
        appended += sum(len(s.context) > 0 and len(s.tokens) < CONFIG.inner.mini_batch for s in found)
        ends = [s.tokens[-1] in shards.line_ends for s in found if len(s.tokens) > 2 * 40]
        assert not ends or np.mean(ends) > 0.7  # cut where a line ends
        tokens = ids(found)
        assert len(np.unique(tokens)) > 0.9 * len(tokens)
    assert returned >= 4
    assert appended > 50


@pytest.mark.parametrize("settings_", [{"tokens": 0}, {"documents": 0}, {"streams": 2.0}, {"part": (9, 3)}])
def test_a_life_that_cannot_be(settings_):
    with pytest.raises(InvalidInputError):
        Life(**{"tokens": 10, **settings_})


# ------------------------------------------------------------------ mixtures and positions


def mixture(share=0.3, seed=0):
    shards = numbered([700, 300, 2500])
    return Mixture(Long(shards, CONFIG, tokens=100, seed=seed), Lives(shards, CONFIG, Life(100), seed=seed), share)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1), st.integers(1, 200))
def test_a_mixture_has_its_share_everywhere(share, count):
    class Kind:
        def __init__(self, name):
            self.identity, self.tokenizer, self.seen = {}, "t", []
            self.name = name

        def sequence(self, index):
            self.seen.append(index)
            return self.name

    first, second = Kind("first"), Kind("second")
    source = Mixture(first, second, share)
    for index in range(count):
        source.sequence(index)
    assert abs(len(second.seen) - share * count) <= 1
    assert first.seen == list(range(len(first.seen)))  # none left out, none twice
    assert second.seen == list(range(len(second.seen)))


def same(one, two):
    return len(one) == len(two) and all(
        np.array_equal(a.tokens, b.tokens) and np.array_equal(a.context, b.context)
        for a, b in zip(one, two, strict=True)
    )


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_the_sequences_and_a_position_goes_on_at_any_number_of_ranks(world):
    alone = list(islice(Sequences(mixture()), 24))
    ranks = [Sequences(mixture(), rank=rank, world=world) for rank in range(world)]
    for step in range(12 // world):
        for rank, one in enumerate(ranks):
            assert same(next(one), alone[step * world + rank])
    states = [one.state() for one in ranks]
    assert all(state == states[0] for state in states)
    for other in (1, 2, 4):
        resumed = [Sequences(mixture(), rank=rank, world=other) for rank in range(other)]
        for one in resumed:
            one.seek(states[0])
        taken = states[0]["sequences"]
        for rank, one in enumerate(resumed):
            assert same(next(one), alone[taken + rank])


def test_a_position_of_other_data_is_refused():
    state = Sequences(mixture()).state()
    for other in (mixture(seed=1), mixture(share=0.5)):
        with pytest.raises(InvalidInputError):
            Sequences(other).seek(state)
    with pytest.raises(InvalidInputError):
        Sequences(mixture()).seek({})
    with pytest.raises(InvalidInputError):
        Sequences(mixture(), rank=2, world=2)
    with pytest.raises(InvalidInputError):
        mixture(share=1.5)
    two = numbered([300]), numbered([300], tokenizer="other")
    with pytest.raises(InvalidInputError):
        Mixture(*(Long(shards, CONFIG, tokens=10) for shards in two), 0.5)


# ------------------------------------------------------------------ draws


def test_draws_are_the_same_everywhere():
    draws = Draws(1, 2, 3)
    assert [round(draws.uniform(), 12) for _ in range(3)] == UNIFORM
    assert list(Draws(7).permutation(8)) == PERMUTATION


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 99), st.integers(1, 500))
def test_draws_stay_in_their_ranges(seed, count):
    draws = Draws(seed)
    assert 0 <= draws.below(count) < count
    assert 3 <= draws.log_uniform(3, 3 + count) <= 3 + count
    assert sorted(draws.permutation(count)) == list(range(count))


UNIFORM = [0.670472262652, 0.111014636669, 0.511509082395]
PERMUTATION = [6, 3, 4, 0, 2, 7, 5, 1]
