"""Two processes take the same outer steps as one, each holds and writes a part, and any number of them goes on."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from ttt_training import sharded_checkpoints
from ttt_training.checkpoints import load_latest

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")
STEPS, STOP = 8, 3
EMBEDDING_AND_PREFIX = {"embedding", "blocks.0.qkv", "blocks.0.out", "blocks.0.gate_up", "blocks.0.down"}


def start(out: Path, what: str, world: int, *, stop: int = 0) -> Path:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join(str(ROOT / part) for part in ("", "kernels", "training"))
    base = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if world > 1:
        base |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(WORKER), str(out), str(STEPS), what, str(stop)]
    ranks = [
        subprocess.Popen(command, env=base | ({"RANK": str(r)} if world > 1 else {}), stderr=subprocess.PIPE, text=True)
        for r in range(world)
    ]
    for rank in ranks:
        _, error = rank.communicate(timeout=600)
        assert rank.returncode == 0, error
    return out


def final(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "final.safetensors")


def losses(out: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (out / "log.jsonl").read_text().splitlines()]


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    assert one.keys() == other.keys()
    return all(float((t - other[name]).norm()) <= 1e-5 * float(t.norm()) for name, t in one.items())


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(t, other[name]) for name, t in one.items())


def copied(out: Path, name: str) -> Path:
    return Path(shutil.copytree(out, out.with_name(name)))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("what", ["dynamic", "all"])
def test_two_processes_equal_one_and_each_other(tmp_path: Path, what: str) -> None:
    """Second-order gradients averaged over two gloo ranks, on sequences of different lengths; then on from step 3."""
    one = start(tmp_path / "one", what, 1)
    two = start(tmp_path / "two", what, 2)
    assert len(losses(one)) == len(losses(two)) == STEPS
    assert losses(two) == pytest.approx(losses(one), rel=1e-5)
    assert close(final(one), final(two))
    assert set((two / "sharded.txt").read_text().split()) == EMBEDDING_AND_PREFIX

    stopped = start(tmp_path / "stopped", what, 2, stop=STOP)
    kept = load_latest(stopped / "checkpoints")
    assert kept is not None
    assert (kept.step, kept.meta["ranks"]) == (STOP, 2)
    assert equal(kept.part("param"), final(stopped))  # one process reads the bits that two wrote
    again = start(copied(stopped, "again"), what, 2)
    assert equal(final(again), final(two))
    assert losses(again) == losses(two)
    alone = start(copied(stopped, "alone"), what, 1)
    assert losses(alone)[STOP:] == pytest.approx(losses(two)[STOP:], abs=1e-5)
    assert close(final(alone), final(two))

    halfway = start(tmp_path / "halfway", what, 1, stop=STOP)
    before = final(halfway)
    together = start(halfway, what, 2)
    assert close(before, final(stopped))
    assert losses(together)[STOP:] == pytest.approx(losses(one)[STOP:], abs=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_every_rank_writes_its_part_and_nothing_is_pickled(tmp_path: Path) -> None:
    folder = start(tmp_path / "run", "all", 2, stop=1) / "checkpoints" / "step-00000001"
    names = sorted(path.name for path in folder.iterdir())
    assert names[0] == "meta.json"
    assert len(names) == 3
    assert all(name.endswith(".safetensors") for name in names[1:])
    held = []
    for name in names[1:]:
        with safe_open(folder / name, framework="pt") as file:
            held.append({key: tuple(file.get_tensor(key).shape) for key in file.keys()})  # noqa: SIM118
    shared = set(held[0]) & set(held[1])
    moments = {f"adam/{name}/{part}" for name in EMBEDDING_AND_PREFIX for part in ("exp_avg", "exp_avg_sq")}
    assert shared == moments | {f"param/{name}" for name in EMBEDDING_AND_PREFIX}
    whole = sharded_checkpoints.read(folder)
    for key in shared:
        assert held[0][key][0] + held[1][key][0] == whole[key].shape[0]
        assert min(held[0][key][0], held[1][key][0]) > 0
    assert set(whole) == set(held[0]) | set(held[1])
    damaged = folder / names[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert load_latest(folder.parent) is None
