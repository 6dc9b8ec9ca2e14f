"""Two processes take the same outer steps as one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("distributed_worker.py")


def start(out: Path, steps: int, what: str, world: int) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = os.pathsep.join(str(ROOT / part) for part in ("", "kernels", "training"))
    base = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    if world > 1:
        base |= {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, str(WORKER), str(out), str(steps), what]
    ranks = [
        subprocess.Popen(command, env=base | ({"RANK": str(r)} if world > 1 else {}), stderr=subprocess.PIPE, text=True)
        for r in range(world)
    ]
    for rank in ranks:
        _, error = rank.communicate(timeout=600)
        assert rank.returncode == 0, error


def expect_equal(folder: Path) -> None:
    one, two = (load_file(folder / name / "final.safetensors") for name in ("one", "two"))
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert float((value - two[name]).norm()) <= 1e-5 * float(value.norm()), name


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("what", ["dynamic", "all"])
def test_two_processes_equal_one(tmp_path, what):
    """Second-order gradients averaged over two gloo ranks; then the last step again, by two and by one."""
    start(tmp_path / "one", 3, what, 1)
    start(tmp_path / "two", 3, what, 2)
    expect_equal(tmp_path)
    two = load_file(tmp_path / "two" / "final.safetensors")
    lines = [(tmp_path / name / "log.jsonl").read_text().splitlines() for name in ("one", "two")]
    assert len(lines[0]) == len(lines[1]) == 3
    sharded = (tmp_path / "two" / "sharded.txt").read_text().split()
    assert bool(sharded) == (what == "dynamic")
    assert all(name.startswith("blocks.0.") for name in sharded)  # the frozen prefix
    for world in (2, 1):  # the last step again from the checkpoint before it
        shutil.rmtree(tmp_path / "two" / "checkpoints" / "step-00000003")
        (tmp_path / "two" / "final.safetensors").unlink()
        start(tmp_path / "two", 3, what, world)
        expect_equal(tmp_path)
        again = load_file(tmp_path / "two" / "final.safetensors")
        assert world == 1 or all(torch.equal(again[name], two[name]) for name in two)
