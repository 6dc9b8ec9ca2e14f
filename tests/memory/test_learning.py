"""Learning is real: on the real model, writes lower the loss of what comes next in the same text."""

from pathlib import Path

import numpy as np
import pytest

from tests.memory.texts import books, pydoc_text
from ttt_memory.artifacts import BASE_MODEL
from ttt_memory.lane import lane_for
from ttt_memory.model.fold import read, score, segments
from ttt_memory.model.registry import load_model

DATA = Path(__file__).parents[3] / "shared" / "data"
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


@pytest.mark.smollm2
@pytest.mark.timeout(600)
def test_writes_lower_the_loss_of_what_follows(smollm2_available, record_property):
    base = load_model(BASE_MODEL)  # whose W0 has learned nothing, so that all of the gain is the writes'
    texts = {"pydoc": pydoc_text(*MODULES)}
    if DATA.is_dir():  # the books lie beside a developer's checkout only; the documentation is on every machine
        texts |= {f"book {n}": body for n, body in enumerate(books(DATA, 2))}
    gains = {}
    for name, body in texts.items():
        written, plain = last_half_losses(base, body)
        gains[name] = plain - written
        print(f"{name}: {plain:.4f} without writes, {written:.4f} with, gain {plain - written:.4f} nats")
    record_property("gains", gains)
    assert all(gain >= 0.03 for gain in gains.values()), gains
    assert np.mean(list(gains.values())) >= 0.05, gains


@pytest.mark.smollm2
@pytest.mark.timeout(600)
def test_writes_lower_the_loss_of_what_follows_from_a_learned_w0_too(smollm2):
    """By less than from a copied one on texts like those W0 was trained on (books: 0.01 to 0.02): it has that part."""
    written, plain = last_half_losses(smollm2, pydoc_text(*MODULES))
    assert plain - written >= 0.03
