"""Checkpoints are complete or absent."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ttt_training import checkpoints


def tensors(step: int) -> dict[str, torch.Tensor]:
    return {"param/w": torch.full((2, 3), float(step)), "adam/w/step": torch.tensor(float(step))}


def test_the_last_two_are_kept_and_read_back(tmp_path: Path) -> None:
    for step in (3, 5, 10):
        checkpoints.save(tmp_path, step, tensors(step), {"position": {"next": step}})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000005", "step-00000010"]
    newest = checkpoints.load_latest(tmp_path)
    assert newest is not None
    assert (newest.step, newest.meta["position"]) == (10, {"next": 10})
    assert torch.equal(newest.part("param")["w"], tensors(10)["param/w"])
    assert set(newest.part("adam")) == {"w/step"}


@pytest.mark.parametrize("damage", ["flip", "cut", "no meta", "half a meta"])
def test_a_damaged_one_gives_way_to_the_one_before(tmp_path: Path, damage: str) -> None:
    for step in (1, 2):
        checkpoints.save(tmp_path, step, tensors(step), {})
    state, meta = (tmp_path / "step-00000002" / name for name in ("state.safetensors", "meta.json"))
    if damage == "flip":
        data = bytearray(state.read_bytes())
        data[-1] ^= 1
        state.write_bytes(bytes(data))
    elif damage == "cut":
        state.write_bytes(state.read_bytes()[:-8])
    elif damage == "no meta":
        meta.unlink()
    else:
        meta.write_text(meta.read_text()[:20])
    found = checkpoints.load_latest(tmp_path)
    assert found is not None
    assert found.step == 1


def test_what_was_not_finished_is_no_checkpoint(tmp_path: Path) -> None:
    assert checkpoints.load_latest(tmp_path / "nothing") is None
    (tmp_path / ".unfinished-00000001-7").mkdir()
    assert checkpoints.load_latest(tmp_path) is None
    checkpoints.clean(tmp_path)
    assert not list(tmp_path.iterdir())
