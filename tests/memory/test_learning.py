"""Learning is real: on the real model, writes lower the loss of what comes next in the same text."""

import numpy as np
import pytest

from tests.memory.texts import books, pydoc_text
from ttt_memory.artifacts import BASE_MODEL
from ttt_memory.lane import lane_for
from ttt_memory.model.fold import read, score, segments
from ttt_memory.model.registry import load_model

TOKENS = 8_192
MODULES = ["argparse", "pathlib", "sqlite3", "subprocess", "unittest"]


def last_half_losses(model, text: str) -> tuple[float, float]:
    """Mean loss (nats per token) of the last half of `TOKENS` tokens: (with writes, without)."""
    tokens = model.tokenizer.encode(text)[:TOKENS]
    assert len(tokens) == TOKENS
    (segment,) = segments(tokens, tokens[:0], model.config, append=False)
    lane = lane_for(10**9)
    steps = []
    state = model.initial_state()
    lane.run(read(model, state, segment), on_step=lambda step: steps.append(step) if step else None)
    assert sum(step.tokens for step in steps) == TOKENS
    assert not any(step.skipped for step in steps)
    later = steps[len(steps) // 2 :]
    written = float(np.average([s.loss for s in later], weights=[s.tokens for s in later]))
    return written, float(lane.run(score(model, state, segment))[TOKENS // 2 :].mean())


def gain(model, name: str, text: str) -> float:
    written, plain = last_half_losses(model, text)
    print(f"{name}: {plain:.4f} without writes, {written:.4f} with, gain {plain - written:.4f} nats")
    return plain - written


@pytest.mark.smollm2
@pytest.mark.timeout(600)
def test_writes_lower_the_loss_of_what_follows(smollm2_available):
    base = load_model(BASE_MODEL)  # whose W0 has learned nothing, so that all of the gain is the writes'
    assert gain(base, "pydoc", pydoc_text(*MODULES)) >= 0.05


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.timeout(600)
def test_writes_lower_the_loss_of_books_too(smollm2_available, data_dir):
    base = load_model(BASE_MODEL)
    gains = [gain(base, f"book {n}", body) for n, body in enumerate(books(data_dir, 2))]
    assert min(gains) >= 0.03
    assert np.mean(gains) >= 0.05


@pytest.mark.slow
@pytest.mark.smollm2
@pytest.mark.timeout(600)
def test_writes_lower_the_loss_of_what_follows_from_a_learned_w0_too(smollm2):
    """By less than from a copied one on texts like those W0 was trained on (books: 0.01 to 0.02): it has that part."""
    assert gain(smollm2, "pydoc", pydoc_text(*MODULES)) >= 0.03
