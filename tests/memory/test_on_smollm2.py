"""Long tests on the real model (`make test-all`)."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest

from tests.memory import test_crash
from tests.memory.texts import books, haystack, needles, paragraphs, pydoc_text
from ttt_memory import CompressedMemory
from ttt_memory.lane import lane_for
from ttt_memory.model.fold import Segment, read, score, segments

pytestmark = [pytest.mark.slow, pytest.mark.smollm2]


@pytest.mark.timeout(1200)
def test_twenty_needle_questions(tmp_path, smollm2):
    facts = needles(20, seed=3)
    body = haystack(paragraphs(pydoc_text("pathlib", "sqlite3"))[:200], facts, seed=4)
    with CompressedMemory.open(f"sqlite:///{tmp_path / 'memory.db'}") as memory:
        memory.ingest(body)
        answered = 0
        for kind, name, code in facts:
            question = f"What is the {kind} for {name}?"
            answer = memory.ask(question)
            assert code in answer.citations[0].text, question
            assert answer.grounded
            written = memory.ask(question, answerer="generate").text
            answered += code in written
            print(f"{question} quoted: {answer.text!r}; written: {written!r}")
        print(f"the code is in {answered} of {len(facts)} written answers")


@pytest.mark.timeout(1800)
def test_three_kills_on_the_real_model(tmp_path, smollm2):
    url, journal = f"sqlite:///{tmp_path / 'memory.db'}", tmp_path / "journal"
    draw = random.Random(11)
    for kill in range(3):
        test_crash.run_and_kill(url, journal, kill, draw.uniform(1.0, 25.0), smollm2.name)
        with CompressedMemory.open(url, tenant="a", model=smollm2.name) as memory:
            test_crash.check(memory, journal)
    with CompressedMemory.open(url, tenant="a", model=smollm2.name) as memory:
        assert memory.verify(replay=True).ok


RESIDENT = """
import json, sys, psutil
from tests.memory.texts import pydoc_text
from tests.memory.test_needles import MODULES
from ttt_memory import CompressedMemory
body, sizes = pydoc_text(*MODULES), []
with CompressedMemory.open("sqlite:///" + sys.argv[1]) as memory:
    tokens = memory._handle.model.tokenizer.encode(body)
    text = lambda first: memory._handle.model.tokenizer.decode(tokens[first : first + 4096])
    for number in range(16):
        memory.ingest(text(number * 4096))
        sizes.append(psutil.Process().memory_info().rss)
print(json.dumps(sizes))
"""


@pytest.mark.timeout(2400)
def test_resident_memory_does_not_grow_with_what_is_read(tmp_path, smollm2):
    command = [sys.executable, "-c", RESIDENT, str(tmp_path / "memory.db")]
    out = subprocess.run(command, capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    sizes = json.loads(out.stdout)
    print("resident MB after each 4K tokens:", [round(size / 1e6) for size in sizes])
    assert max(sizes) - sizes[0] <= 200e6


@pytest.mark.timeout(2400)
def test_specificity_is_reported(smollm2, data_dir):
    """A's memory against W0 and against another book's memory, on A's later text read with a fresh window."""
    lane, model = lane_for(10**9), smollm2
    tokens = [model.tokenizer.encode(body[:120_000]) for body in books(data_dir, 4)]
    states = []
    for ids in tokens:
        (segment,) = segments(ids[:8192], ids[:0], model.config, append=False)
        states.append(lane.run(read(model, model.initial_state(), segment)))

    def losses(state, ids):
        return lane.run(score(model, state, Segment(ids[:0], ids[10_240:14_336])))

    rows = []
    for number, ids in enumerate(tokens):
        own, none = losses(states[number], ids), losses(model.initial_state(), ids)
        other = losses(states[(number + 1) % len(states)], ids)
        rows.append((none - own, other - own))
    for name, gains in zip(("W0", "another book's memory"), zip(*rows, strict=True), strict=True):
        means = np.array([gain.mean() for gain in gains])
        draws = np.random.default_rng(0).choice(means, (10_000, len(means))).mean(1)
        low, high = np.quantile(draws, (0.025, 0.975))
        print(f"own memory against {name}: {means.mean():+.4f} nats, 95 % interval {low:+.4f} to {high:+.4f}")
        print("  by book:", [f"{mean:+.4f}" for mean in means])
        assert np.isfinite(means).all()


THREADS = """
import sys, torch
from tests.memory.texts import pydoc_text
from ttt_memory import CompressedMemory
if sys.argv[1] != "-":
    torch.set_num_threads(int(sys.argv[1]))
with CompressedMemory.open("sqlite://") as memory:
    memory.ingest(pydoc_text("argparse")[:7000])
    print(memory.stats().digest, memory.verify(replay=True).ok)
"""


@pytest.mark.timeout(900)
def test_the_application_s_thread_count_does_not_matter(smollm2):
    answers = {}
    for omp, own in (("1", "-"), ("1", "8"), ("2", "-"), ("2", "1"), ("8", "-"), ("1", "-"), ("1", "-"), ("1", "-")):
        worker = subprocess.run(
            [sys.executable, "-c", THREADS, own],
            env={**os.environ, "OMP_NUM_THREADS": omp, "OMP_WAIT_POLICY": "active"},
            capture_output=True,
            text=True,
            check=True,
        )
        answers.setdefault(worker.stdout, []).append((omp, own))
    assert len(answers) == 1, answers
    assert next(iter(answers)).split()[1] == "True"
