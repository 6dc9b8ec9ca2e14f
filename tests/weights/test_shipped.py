"""What comes with the package: the learned initialisation that a memory opens by default."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.model.networks import drain
from ttt_memory.artifacts import BASE_MODEL, DEFAULT_MODEL
from ttt_memory.model.catalogue import shipped
from ttt_memory.model.fold import read, segments
from ttt_memory.model.initialisation import read_initialisation
from ttt_memory.model.pull import pull
from ttt_memory.model.registry import load_model

ROOT = Path(__file__).parents[2]


def test_it_is_small_and_says_how_it_was_made():
    path = shipped()[DEFAULT_MODEL]
    assert path.stat().st_size <= 32_000_000
    learned = read_initialisation(path)
    assert learned.base == BASE_MODEL
    assert learned.training["tokens"] >= 2_990_000
    assert path.with_suffix(".md").read_text(encoding="utf-8").startswith(f"# {DEFAULT_MODEL}")


def test_pulling_it_brings_its_base(smollm2_available):
    assert pull([smollm2_available]) == {smollm2_available: pull([BASE_MODEL])[BASE_MODEL]}


def test_its_control_was_trained_alike_but_for_the_writes():
    learned = read_initialisation(shipped()[DEFAULT_MODEL])
    control = read_initialisation(ROOT / "benchmarks" / "weights" / f"{BASE_MODEL}-control.safetensors")
    assert control.config == learned.config
    assert set(learned.tensors()) - set(control.tensors()) == {"inner_rates"}
    for key in ("recipe", "steps", "tokens", "skipped", "data"):
        assert control.training[key] == learned.training[key], key
    ours, its = learned.training["settings"], control.training["settings"]
    # What a training may keep of a sequence is chosen by the machine, and changes no bit.
    assert {key for key in ours if ours[key] != its[key]} == {"inner", "memory_gb"}
    assert its["inner"] == "none"
    log = (control.path.parent / f"{control.name}.log.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, control.training["steps"] + 1))
    card = control.path.with_suffix(".md").read_text(encoding="utf-8")
    assert "A control" in card
    assert control.sha256 in card


def test_it_is_the_base_with_another_w0(smollm2):
    base = load_model(BASE_MODEL).net.state_dict()
    ours = smollm2.net.state_dict()
    differing = {name for name in base if not torch.equal(base[name], ours[name].to(base[name].dtype))}
    assert differing == {name for name in base if ".w0_" in name or name == "inner_rates"}


def test_it_remembers_what_it_read(smollm2):
    text = (ROOT / "docs" / "how-to" / "training.md").read_text(encoding="utf-8")
    tokens, state, losses = smollm2.tokenizer.encode(text)[:1536], smollm2.initial_state(), []
    for _ in range(2):
        (segment,) = segments(tokens, np.zeros(0, np.int32), smollm2.config, append=False)
        state, steps = drain(read(smollm2, state, segment))
        losses.append(np.mean([step.loss for step in steps]))
    assert losses[0] - losses[1] > 0.1


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_reading_much_does_not_harm_other_texts(smollm2, data_dir, tmp_path, capsys):
    from ttt_training.evaluate.__main__ import main

    out = tmp_path / "drift.json"
    given = ["drift", "--data", str(data_dir / "books" / "val-000.jsonl.xz"), "--documents", "2", "--stops", "1,2"]
    assert main([*given, "--json", str(out)]) == 0
    last = json.loads(out.read_text())["stops"][-1]
    assert last["read"] == 32_768
    rise = last["rise"]["mean"]
    with capsys.disabled():
        print(f"\ndrift after 32,768 tokens of other books: {rise:+.4f} nats")
    assert rise <= 0.02
