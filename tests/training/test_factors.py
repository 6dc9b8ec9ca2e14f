"""One-factor comparisons: eight runs that differ in one thing each, a narrower state, the command on the tiny model."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from ttt_training import compare_factors
from ttt_training.factors import factors
from ttt_training.recipes import changed, recipe

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.initialisation import reshaped
from ttt_memory.model.registry import load_model
from ttt_memory.model.tiny import tiny

NAMES = ["default", "muon", "decay", "width", "blocks", "mini-batch", "window", "recall"]


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        inside = flat(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
        found |= inside
    return found


def test_each_run_differs_from_the_default_in_one_thing() -> None:
    config = replace(tiny().config, layers=6, dynamic_layers=2)
    made = {
        one.name: changed(recipe("retrofit", base="tiny", config=config), one.changes).phases[0]
        for one in factors(config, tokens=20_000, length=1000, seed=3)
    }
    assert list(made) == NAMES
    default = flat(asdict(made["default"]))
    differing = {}
    for name, phase in made.items():
        ours = flat(asdict(phase))
        differing[name] = {key for key in {*ours, *default} if ours.get(key) != default.get(key)}
        assert phase.tokens == 20_000
    recall = {key for key in differing["recall"] if key.startswith("training.recall")}
    assert differing == {
        "default": set(),
        "muon": {"config.inner.rule", "config.inner.rate", "training.rate_lr", "training.rate_floor"},
        "decay": {"config.inner.decay"},
        "width": {"config.dynamic_mlp"},
        "blocks": {"config.dynamic_layers"},
        "mini-batch": {"config.inner.mini_batch"},
        "window": {"config.window", "config.context_tokens"},
        "recall": recall,
    }
    assert recall


def test_a_narrower_state_keeps_the_strongest_neurons_and_still_changes_nothing() -> None:
    base = tiny().net
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for block in base.layers():  # the built-in model's columns are alike
            block.down.mul_(torch.rand(block.down.shape[1], generator=generator) + 0.5)
    width = base.config.dynamic_mlp // 3
    net = reshaped(base, replace(base.config, dynamic_mlp=width))
    block, wide = net.layers()[-1], base.layers()[-1]
    assert block.w0_down.shape == (base.config.hidden, width)
    norms = wide.down.norm(dim=0)
    kept = sorted(range(len(norms)), key=lambda i: -float(norms[i]))[:width]
    gate, up = wide.w0_gate_up.chunk(2)
    assert torch.equal(block.w0_gate_up, torch.cat((gate[sorted(kept)], up[sorted(kept)])))
    tokens = torch.arange(40)[None]
    assert torch.equal(net(tokens, net.initial_state())[0], base(tokens)[0])
    with pytest.raises(ModelFormatError):
        reshaped(base, replace(base.config, dynamic_mlp=base.config.dynamic_mlp + 1))


def texts(path: Path, seed: int, count: int) -> Path:
    words = [f"w{i % 7}rd{i}" for i in range(60)]
    lines = [" ".join(random.Random(f"{seed} {n}").choices(words, k=600)) for n in range(count)]
    path.write_text("".join(json.dumps({"text": line}) + "\n" for line in lines))
    return path


@pytest.mark.timeout(300)
def test_the_command_goes_on_where_it_stopped_and_writes_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    held, out = texts(tmp_path / "held.jsonl", 1, 2), tmp_path / "factors.json"
    given = f"--base tiny --data {texts(tmp_path / 'data.jsonl', 0, 6)} --held-out {held} --out {tmp_path / 'runs'} "
    given += f"--json {out} --shards {tmp_path} --tokens 800 --length 400 --memory-share 0 --documents 1 --read 512"
    assert compare_factors.main([*given.split(), "--only", "nothing"]) == 1
    assert "Known: default, muon" in capsys.readouterr().err

    real, trained = compare_factors.run, []

    def stopping(made: Any, *arguments: Any, **options: Any) -> Any:
        trained.append(arguments[2].name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return real(made, *arguments, **options)

    monkeypatch.setattr(compare_factors, "run", stopping)
    assert compare_factors.main(given.split()) == 3
    assert list(json.loads(out.read_text())["runs"]) == NAMES[:2]
    assert list((tmp_path / "runs" / "prefix").iterdir())  # for the runs that are left
    first = json.loads(out.read_text())["runs"]["default"]
    assert compare_factors.main(given.split()) == 0
    found = json.loads(out.read_text())
    assert found["runs"]["default"] == first  # neither trained nor measured again
    assert list(found["runs"]) == NAMES
    assert not (tmp_path / "runs" / "prefix").exists()
    table = capsys.readouterr().out
    assert table == out.with_suffix(".md").read_text()
    assert all(f"| {name} |" in table for name in NAMES)
    assert str(tmp_path) not in json.dumps(found) + table
    runs, config = found["runs"], load_model("tiny").config
    bytes_of = {name: row["state_bytes"] for name, row in runs.items()}
    assert bytes_of["width"] * config.dynamic_mlp == bytes_of["default"] * (config.dynamic_mlp // 3)
    assert bytes_of["blocks"] * config.dynamic_layers == bytes_of["default"] * (config.dynamic_layers + 1)
    assert len({row["loss"] for row in runs.values()}) == len(NAMES)
    assert all(row["trained_tokens_per_second"] > 0 and 0 <= row["chosen"] <= 1 for row in runs.values())

    shutil.rmtree(tmp_path / "runs")
    assert compare_factors.main(given.split()) == 0  # from the progress file alone
    assert json.loads(out.read_text())["runs"] == found["runs"]
    assert len(trained) == 3 + 6
    assert compare_factors.main([*given.replace("--tokens 800", "--tokens 400").split(), "--only", "width"]) == 0
    assert len(trained) == 3 + 6 + 1  # another training
