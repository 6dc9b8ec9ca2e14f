"""Recipes: the paper's numbers, what options change, and the whole road from text to an open memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from ttt_training.__main__ import main
from ttt_training.config import TrainConfig
from ttt_training.data.shards import open_shards
from ttt_training.errors import TrainingConfigError
from ttt_training.evaluate.__main__ import main as evaluate
from ttt_training.exporting import export_run
from ttt_training.planning import plan
from ttt_training.recipes import RECIPES, Changes, Phase, Recipe, changed, recipe
from ttt_training.recipes.paper import SIZES
from ttt_training.recipes.retrofit import DECAY
from ttt_training.running import open_data, run
from ttt_training.weights import load_trained

from ttt_memory import CompressedMemory
from ttt_memory.errors import MissingExtraError, ModelMismatchError, NotFoundError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.initialisation import read_initialisation
from ttt_memory.model.registry import load_model
from ttt_memory.model.tiny import CONFIG, tiny
from ttt_memory.model.transformer import Transformer

# Table 3 of the paper: parameters (billions, as named), tokens of pre-training, and of the extension.
PAPER = {
    "125m": (0.125, 2.5e9, 128_256),
    "350m": (0.350, 7e9, 128_256),
    "760m": (0.760, 15e9, 128_256),
    "1.3b": (1.3, 26e9, 128_256),
    "3b": (2.7, 54e9, 128_256),
}


def numbers(phase):
    return plan(phase, dtype=torch.bfloat16, measure=False)


@pytest.mark.parametrize("size", SIZES)
def test_the_papers_sizes_and_tokens(size):
    parameters, tokens, _ = PAPER[size]
    for name in (size, f"{size}-128k"):
        first, second = RECIPES[name]().phases
        assert first.tokens == pytest.approx(tokens, rel=0.03)
        assert second.tokens == pytest.approx(0.05 * first.tokens, rel=0.01)
        assert second.length == (131_072 if name.endswith("128k") else 32_768)
        assert second.config.segment_tokens == second.length
    e2e = numbers(RECIPES[size]().phases[0])
    # The paper's names count parameters without one of the two uses of the embedding, as everyone's do.
    embedding = 128_256 * SIZES[size].hidden
    assert e2e.parameters - embedding == pytest.approx(1e9 * parameters, rel=0.35)
    full = numbers(RECIPES[f"{size}-full"]().phases[0])
    assert full.parameters == pytest.approx(e2e.parameters, rel=0.02)  # the same budget for every method


@pytest.mark.parametrize("method", ["full", "swa", "hybrid51"])
def test_baselines_differ_in_attention_alone(method):
    first, second = RECIPES[f"125m-{method}"]().phases
    config = first.config
    assert config.dynamic_layers == 0
    assert first.training.inner == "none"
    windows = [config.of_block(i).window for i in range(config.layers)]
    assert (
        windows
        == {
            "full": [None] * 12,
            "swa": [8192] * 12,
            "hybrid51": [8192, 8192, 8192, 8192, 8192, None] * 2,
        }[method]
    )
    assert second.config.rope_theta == (2e6 if method == "full" else 5e5)
    other = replace(config, window=8192, full_attention_every=0, rope_theta=5e5)
    assert other == RECIPES["125m-swa"]().phases[0].config


def test_hybrid_blocks_see_past_the_window_and_windowed_ones_do_not():
    shape = {"vocab_size": 50, "hidden": 16, "layers": 2, "heads": 2, "kv_heads": 2, "head_dim": 8, "mlp": 16}
    shape |= {"dynamic_layers": 0, "dynamic_mlp": 0, "block": "paper", "sinks": 0}
    tokens = torch.randint(50, (1, 40), generator=torch.Generator().manual_seed(1))
    other = tokens.clone()
    other[0, 0] = (other[0, 0] + 1) % 50
    nets = {}
    for name, window, every in (("swa", 4, 0), ("hybrid", 4, 2), ("full", None, 0)):
        net = Transformer(ModelConfig(**shape, window=window, full_attention_every=every)).double()
        net.initialise(torch.Generator().manual_seed(0), std=0.5)
        nets[name] = net.requires_grad_(False)
    reached = {name: bool((net(tokens)[0][0, -1] != net(other)[0][0, -1]).any()) for name, net in nets.items()}
    assert reached == {"swa": False, "hybrid": True, "full": True}
    hybrid = nets["hybrid"]
    whole, cache, parts = hybrid(tokens)[0], None, []
    for part in tokens.split(7, dim=1):
        logits, cache = hybrid(part, cache=cache)
        parts.append(logits)
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-12)


def test_options_change_a_recipe():
    base = RECIPES["125m"]()
    small = changed(
        base, Changes(tokens=10_000_000, batch=4, control=True, training={"lr": 1e-3}, inner={"decay": 0.1})
    )
    assert sum(p.tokens for p in small.phases) == pytest.approx(10_000_000, rel=0.05)
    assert small.phases[0].training.inner_warm_up == pytest.approx(0.1 * small.phases[0].training.steps, abs=1)
    for phase in small.phases:
        assert (phase.training.inner, phase.training.lr, phase.config.inner.decay) == ("none", 1e-3, 0.1)
    assert changed(base, Changes()) == base
    for wrong in (Changes(tokens=0), Changes(length=0), Changes(memory_share=1.5), Changes(batch=-1)):
        with pytest.raises(TrainingConfigError):
            changed(base, wrong)
    with pytest.raises(TrainingConfigError, match="retrofit"):
        recipe("764m")
    as_read = replace(CONFIG, inner=replace(CONFIG.inner, decay=DECAY))  # decision 13
    assert recipe("retrofit", base="tiny", config=CONFIG).phases[0].config == as_read


def test_every_recipe_can_be_planned():
    for make in RECIPES.values():
        for phase in make().phases:
            phase.training.check(phase.config)
            assert numbers(phase).tokens > 0


def test_text_to_memory(tmp_path, capsys):
    """Data, train, save, load: the road of `make train-tiny`, on less."""
    data, out = tmp_path / "d.jsonl", tmp_path / "run"
    text = " ".join(f"The {n}. lamp of the harbour was lit at {n % 24} o'clock." for n in range(400))
    data.write_text(json.dumps({"text": text}) + "\n{broken\n")
    command = ["run", "tiny", "--data", str(data), "--out", str(out), "--shards", str(tmp_path), "--tokens", "2000"]
    assert main([*command, "--length", "500"]) == 0
    said = capsys.readouterr()
    assert "parameters" in said.err
    assert "time" in said.err
    assert "d.jsonl:2" in said.err  # the bad record, by file and line
    record = json.loads((out / "run.json").read_text())
    assert record["done"]["tiny"]["tokens"] == 2000
    assert str(tmp_path) not in json.dumps(record)
    assert record["about"]["command"].startswith("python -m ttt_training run tiny --data d.jsonl --out run --shards")
    assert main([*command, "--length", "500"]) == 0  # done already: nothing to do
    assert main([*command, "--length", "250"]) == 1
    assert "another run" in capsys.readouterr().err
    file = tmp_path / "tiny-ttt.safetensors"
    plain = tmp_path / "plain.safetensors"
    assert main(["export", str(out), "--out", str(file), "--name", "tiny-ttt", "--plain", str(plain)]) == 0
    card = file.with_suffix(".md").read_text()
    assert "not stated" in card  # the data's licences were not given
    assert "None was given" in card
    result = tmp_path / "evaluation.json"
    evaluated = f"compare --data {data} --documents 1 --tokens 1024 --model tiny --compare swa,ttt --weights {file}"
    data.write_text(json.dumps({"text": text}) + "\n")
    assert evaluate([*evaluated.split(), "--json", str(result)]) == 0
    codes = tmp_path / "needles.json"
    hidden = f"needles --data {data} --documents 1 --tokens 1024 --distances 256 --no-notepad --model tiny"
    assert evaluate([*hidden.split(), "--weights", str(file), "--json", str(codes)]) == 0
    assert main(["card", str(file), "--data-about", "lamps, CC0", "--evaluation", str(result), str(codes)]) == 0
    card = file.with_suffix(".md").read_text()
    expected = [
        "lamps, CC0. Files: d.jsonl.",
        "Apache-2.0",
        "`python -m ttt_training run tiny --data d.jsonl",
        "4, 2,000",
    ]
    expected += ["| Hours | 0.0", "PyTorch", "| Seed | 0 |", "| ttt | ", "ttt - swa, worst bin", "## Limits"]
    expected += ["| 256 | "]  # of the needles
    assert [part for part in expected if part not in card] == []
    assert "not stated" not in card
    assert str(tmp_path) not in card
    assert main(["card", str(file), "--evaluation", str(data)]) == 1
    decaying = tmp_path / "decaying.safetensors"
    assert main(["export", str(out), "--out", str(decaying), "--name", "tiny-ttt", "--decay", "0.02"]) == 0
    one, other = read_initialisation(file), read_initialisation(decaying)
    assert (one.config.inner.decay, other.config.inner.decay) == (0.0, 0.02)
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in one.tensors().items())
    assert "decay to W0 0.02, trained with 0)" in decaying.with_suffix(".md").read_text()
    assert main(["export", str(out), "--out", str(decaying), "--name", "tiny-ttt", "--decay", "-1"]) == 1
    assert read_initialisation(decaying).config.inner.decay == 0.02
    assert load_trained(plain).keys() == load_trained(out / "tiny" / "final.safetensors").keys()
    with CompressedMemory.open(f"sqlite:///{tmp_path}/m.db", model=file, embedder="hash") as memory:
        receipt = memory.ingest(text[:2000])
        assert receipt.losses[-1] < tiny_loss(text[:2000])


def tiny_loss(text):
    with CompressedMemory.open("sqlite://", model="tiny") as memory:
        return memory.ingest(text).losses[-1]


def harbour(tmp_path):
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"text": "The lamp of the harbour was lit. " * 200}) + "\n")
    return path


def test_phases_go_on_from_each_other(tmp_path):
    config = replace(CONFIG, dynamic_layers=0, dynamic_mlp=0, hidden=16, head_dim=4, mlp=16, segment_tokens=200)
    training = TrainConfig(steps=2, train="all", inner="none", lr=1e-2, floor=1e-2)
    first = Phase("first", config, training, length=100)
    longer = replace(config, window=128, segment_tokens=400, rope_theta=5e4)
    second = Phase("second", longer, replace(training, lr=0.0, floor=0.0), length=200)
    shards = open_data([harbour(tmp_path)], tiny().tokenizer, tmp_path)
    made = Recipe("two", "", None, None, (first, second))
    said = []
    finished = run(made, shards, tiny().tokenizer, tmp_path / "run", dtype=torch.float32, say=said.append)
    assert finished.done
    assert len(finished.results) == 2
    before, after = (load_trained(tmp_path / "run" / name / "final.safetensors") for name in ("first", "second"))
    assert all(torch.equal(before[name], after[name]) for name in before)
    again = run(made, shards, tiny().tokenizer, tmp_path / "run", dtype=torch.float32, say=said.append)
    assert again.done
    assert again.results == ()
    with pytest.raises(TrainingConfigError, match="no base"):
        export_run(tmp_path / "run", tmp_path / "x.safetensors", name="x")


def test_what_cannot_work_stops_before_work(tmp_path, capsys, monkeypatch):
    data, out = str(harbour(tmp_path)), str(tmp_path / "run")
    common = ["--shards", str(tmp_path), "--data", data, "--out", out]
    assert main(["run", "125m", *common]) == 1
    assert "--tokenizer" in capsys.readouterr().err
    assert main(["run", "tiny", *common, "--length", "100000"]) == 1
    assert "shorter sequences" in capsys.readouterr().err
    assert main(["run", "tiny", "--shards", str(tmp_path), "--data", "absent.jsonl", "--out", out]) == 1
    assert main(["run", "tiny", *common, "--mini-batch", "0"]) == 1
    assert main(["plan", "tiny", "--mini-batch", "0"]) == 1
    assert main(["plan", "tiny", "--window", "1"]) == 1  # not more than the sinks
    assert main(["plan", "retrofit", "--base", "tiny", "--decay", "1"]) == 1
    assert not (tmp_path / "run" / "tiny").exists()
    with pytest.raises(TrainingConfigError):
        export_run(tmp_path, tmp_path / "x.safetensors", name="x")
    with pytest.raises((MissingExtraError, NotFoundError)):
        open_data(["hf:absent/dataset"], tiny().tokenizer, tmp_path)
    shards = open_data([data], tiny().tokenizer, tmp_path)
    assert open_data([shards.folder], tiny().tokenizer, tmp_path).key == open_shards(shards.folder).key
    monkeypatch.setattr(type(tiny().tokenizer), "fingerprint", "another")
    with pytest.raises(ModelMismatchError):
        open_data([shards.folder], load_model("tiny").tokenizer, tmp_path)
