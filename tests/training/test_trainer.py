"""Runs: they learn, end where they are told to, and go on bit for bit."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from outer import MIXED, Words, network, segment
from ttt_training import checkpoints
from ttt_training.config import RecallConfig, TrainConfig
from ttt_training.errors import TrainingConfigError, TrainingDivergedError
from ttt_training.trainer import TrainResult, train

from ttt_memory.errors import InvalidInputError, MissingExtraError
from ttt_memory.model.fold import Segment
from ttt_memory.model.transformer import Transformer

CONFIG = TrainConfig(
    steps=10, batch=2, lr=0.01, checkpoint_steps=3, recall=RecallConfig(tokens=6, context=3), inner_warm_up=4,
    inner_start=0.5,
)  # fmt: skip


def net(**changes: Any) -> Transformer:
    return network(dtype=torch.float32, **changes)


def run(out: Path, config: TrainConfig = CONFIG, source: Words | None = None, **options: Any) -> TrainResult:
    return train(net(), source or Words(), config, out, **({"progress": False} | options))


def everything(out: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any], list[dict[str, Any]]]:
    """Newest checkpoint's tensors and meta, and the log without what a clock says."""
    kept = checkpoints.load_latest(out / "checkpoints")
    assert kept is not None
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("tokens_per_second")
    return kept.tensors, {k: v for k, v in kept.meta.items() if k != "sha256"}, lines


def same(one: Path, other: Path) -> None:
    (tensors, meta, log), (more, meta_too, log_too) = everything(one), everything(other)
    assert set(tensors) == set(more)
    assert all(torch.equal(tensor, more[name]) for name, tensor in tensors.items())
    assert meta == meta_too
    assert log == log_too
    finals = [load_file(out / "final.safetensors") for out in (one, other)]
    assert all(torch.equal(tensor, finals[1][name]) for name, tensor in finals[0].items())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    run(out)
    return out


def test_a_run_learns_and_logs(uninterrupted: Path) -> None:
    _, meta, log = everything(uninterrupted)
    assert [line["step"] for line in log] == list(range(1, 11))
    assert np.mean([line["loss"] for line in log[-3:]]) < np.mean([line["loss"] for line in log[:3]])
    assert log[-1]["tokens"] == meta["tokens"] == 10 * 2 * 40
    assert {"lr", "rate_lr", "grad_norm", "inner_norm", "inner_rate", "recall_loss", "skipped"} <= set(log[0])
    assert log[0]["inner_rate"] != pytest.approx(0.7, abs=1e-6)
    names = sorted(path.name for path in (uninterrupted / "checkpoints").iterdir())
    assert names == ["step-00000009", "step-00000010"]
    assert all(t.dtype == torch.float32 for t in load_file(uninterrupted / "final.safetensors").values())


def test_running_again_a_finished_run_changes_nothing(uninterrupted: Path) -> None:
    before = everything(uninterrupted)
    again = run(uninterrupted)
    assert (again.step, again.loss) == (10, before[2][-1]["loss"])
    after = everything(uninterrupted)
    assert before[1:] == after[1:]


class Interrupting(Words):
    """Sends a signal in the middle of an outer step, when its second sequence is asked for."""

    def __next__(self) -> tuple[Segment, ...]:
        if self.state()["next"] == 2 * 6 + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__next__()


def test_a_signal_keeps_the_last_step_and_the_run_goes_on_bit_for_bit(
    tmp_path: Path, uninterrupted: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)

    def stop(record: Mapping[str, Any]) -> None:
        if record["step"] == 4:
            os.kill(os.getpid(), signal.SIGINT)

    first = run(tmp_path, progress=stop)
    assert (first.interrupted, first.step) == (True, 4)
    assert first.checkpoint.is_dir()
    second = run(tmp_path, source=Interrupting())
    assert (second.interrupted, second.step) == (True, 6)
    assert signal.getsignal(signal.SIGINT) is before
    last = run(tmp_path, progress=True)
    assert not last.interrupted
    assert str(last.checkpoint) in capfd.readouterr().err
    same(tmp_path, uninterrupted)


def kill_and_resume(out: Path, after_steps: int) -> None:
    worker = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("killed_run.py")), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert worker.stdout is not None
    for line, _ in enumerate(worker.stdout, start=1):
        if line == after_steps:
            worker.send_signal(signal.SIGKILL)
    assert worker.wait() == -signal.SIGKILL


def test_a_killed_run_goes_on_bit_for_bit(tmp_path: Path, uninterrupted: Path) -> None:
    kill_and_resume(tmp_path, random.Random(os.urandom(4)).randint(1, 9))
    run(tmp_path)
    same(tmp_path, uninterrupted)


@pytest.mark.slow
def test_a_run_killed_again_and_again_goes_on_bit_for_bit(tmp_path: Path, uninterrupted: Path) -> None:
    for _ in range(6):
        kill_and_resume(tmp_path, random.Random(os.urandom(4)).randint(1, 2))
    run(tmp_path)
    same(tmp_path, uninterrupted)


def test_steps_that_are_not_finite_are_skipped_and_too_many_end_the_run(tmp_path: Path) -> None:
    """Token 7 has no finite embedding; with a head of its own only sequences that hold it suffer."""
    config = replace(CONFIG, batch=1, recall=None, max_skipped=2)

    def go(out: Path, spoil: tuple[int, ...]) -> TrainResult:
        broken = net(tied=False)
        with torch.no_grad():
            broken.embedding[7] = math.nan
        return train(broken, Words(spoil=spoil), config, out, progress=False)

    result = go(tmp_path / "two", (2, 5))
    assert (result.step, result.skipped) == (10, 2)
    tensors, _, log = everything(tmp_path / "two")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values())
    assert [line["step"] for line in log if not math.isfinite(line["loss"])] == [3, 6]
    with pytest.raises(TrainingDivergedError) as caught:
        go(tmp_path / "three", (4, 5, 7))
    assert caught.value.context["skipped"] == 3
    kept = checkpoints.load_latest(tmp_path / "three" / "checkpoints")
    assert kept is not None
    assert kept.step == 6
    assert all(bool(torch.isfinite(tensor).all()) for tensor in kept.tensors.values())


def test_the_control_trains_the_same_parameters_without_writes(tmp_path: Path) -> None:
    run(tmp_path, replace(CONFIG, inner="none", recall=None))
    _, _, log = everything(tmp_path)
    assert np.mean([line["loss"] for line in log[-3:]]) < np.mean([line["loss"] for line in log[:3]])
    trained = load_file(tmp_path / "final.safetensors")
    assert torch.equal(trained["inner_rates"], net().inner_rates.detach())
    assert not torch.equal(trained["blocks.1.w0_down"], net().blocks[1].w0_down.detach())  # type: ignore[union-attr]


def test_sequences_that_end_end_the_run(tmp_path: Path) -> None:
    assert run(tmp_path, source=Words(end=7)).step == 3


def test_what_cannot_work_is_said_before_any_work(tmp_path: Path, uninterrupted: Path) -> None:
    bad: list[dict[str, Any]] = [{"steps": 0}, {"train": "some"}, {"inner": "maybe"}, {"warm_up": 2.0}, {"every": 0}]
    for changes in (*bad, {"lr": math.nan}, {"recall": RecallConfig(weight=0.0)}):
        with pytest.raises(TrainingConfigError):
            run(tmp_path / "new", replace(CONFIG, **changes))
    with pytest.raises(TrainingConfigError, match="Full attention"):
        train(net(window=None), Words(), CONFIG, tmp_path / "new", progress=False)
    source = Words()
    source.tokenizer = "one"  # type: ignore[attr-defined]
    with pytest.raises(TrainingConfigError, match="another tokenizer"):
        run(tmp_path / "new", source=source, tokenizer="other")
    assert not (tmp_path / "new").exists()
    with pytest.raises(TrainingConfigError, match="another lr"):
        run(uninterrupted, replace(CONFIG, lr=0.5))
    with pytest.raises(TrainingConfigError, match="another run"):
        train(net(dynamic_mlp=12), Words(), CONFIG, uninterrupted, progress=False)
    with pytest.raises(TrainingConfigError, match="holds a run already"):
        run(uninterrupted, resume=False)
    with pytest.raises(InvalidInputError, match="token ids"):
        train(net(vocab_size=31), Words(), CONFIG, tmp_path / "small", progress=False)


def test_a_configuration_is_json_and_back() -> None:
    assert TrainConfig.from_dict(json.loads(json.dumps(CONFIG.to_dict()))) == CONFIG
    with pytest.raises(TrainingConfigError, match="Unknown"):
        TrainConfig.from_dict({"steps": 1, "speed": 2})


def test_a_recalled_span_has_left_the_window() -> None:
    window, recall, seen = 20, RecallConfig(tokens=6, context=9), set()
    flat = np.concatenate([one.tokens for one in MIXED])
    for seed in range(200):
        found = recall.choose(MIXED, window, np.random.default_rng(seed))
        assert found is not None
        span = found.segment
        places = [p for p in range(len(flat) - 5) if np.array_equal(flat[p : p + 6], span.tokens)]
        assert len(places) == 1
        assert places[0] + 6 + window <= len(flat)
        ends = np.cumsum([len(one.tokens) for one in MIXED])
        owner = MIXED[int(np.searchsorted(ends, places[0], side="right"))]
        text = np.concatenate((owner.context, owner.tokens))
        cut = [(text[max(0, at - 9) : at], text[at : at + 6]) for at in range(len(text) - 5)]
        assert any(np.array_equal(before, span.context) and np.array_equal(six, span.tokens) for before, six in cut)
        seen.add(places[0])
    room = len(flat) - 6 - window + 1
    assert len(seen) > room // 2
    assert recall.choose([segment(0, 10)], window, np.random.default_rng(0)) is None


def test_weights_and_biases_only_where_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    if find_spec("wandb") is None:
        with pytest.raises(MissingExtraError, match="wandb"):
            run(tmp_path, replace(CONFIG, steps=1), wandb="project")
        return
    for steps in (1, 1):  # the second call goes on with the same run
        assert run(tmp_path, replace(CONFIG, steps=steps), wandb="project").step == 1
    found = list((tmp_path / "wandb").glob("offline-run-*"))
    name = (tmp_path / "wandb-run.txt").read_text().strip()
    assert len(found) == 2
    assert all(path.name.endswith(name) for path in found)
