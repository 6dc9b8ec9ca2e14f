"""Checkpoints are complete or absent."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from ttt_training import checkpoints, sharded_checkpoints

from ttt_memory.errors import ModelFormatError


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


def test_one_process_writes_whole_tensors_and_their_digest(tmp_path: Path) -> None:
    """The form that runs of earlier versions have on disk: they go on."""
    target = checkpoints.save(tmp_path, 4, tensors(4), {"position": {"next": 4}})
    assert sorted(path.name for path in target.iterdir()) == ["meta.json", "state.safetensors"]
    assert set(load_file(target / "state.safetensors")) == {"param/w", "adam/w/step"}
    meta = json.loads((target / "meta.json").read_text())
    assert set(meta) == {"position", "sha256", "step"}


@settings(max_examples=15, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([torch.float32, torch.float64, torch.bfloat16]), st.lists(st.integers(1, 5), max_size=2)
        ),
        min_size=1,
        max_size=4,
    )
)
def test_what_ranks_write_is_read_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, made: list[object]) -> None:
    folder = tmp_path_factory.mktemp("parts")
    generator = torch.Generator().manual_seed(len(made))
    kept = {
        f"param/blocks.{i}.w": torch.randn(tuple(shape), generator=generator, dtype=torch.float64).to(dtype)  # type: ignore[misc]
        for i, (dtype, shape) in enumerate(made)
    }
    work = checkpoints.begin(folder, 7, "ranks")
    sharded_checkpoints.write(work, kept)
    checkpoints.finish(folder, 7, work, {"files": checkpoints.digests(work)})
    found = checkpoints.load_latest(folder)
    assert found is not None
    assert found.step == 7
    assert found.tensors.keys() == kept.keys()
    assert all(found.tensors[name].dtype == t.dtype and torch.equal(found.tensors[name], t) for name, t in kept.items())


def test_an_older_pytorch_says_what_it_cannot_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = checkpoints.begin(tmp_path, 1, "ranks")
    sharded_checkpoints.write(work, tensors(1))
    checkpoints.finish(tmp_path, 1, work, {"files": checkpoints.digests(work)})
    monkeypatch.setattr(sharded_checkpoints, "_storage", lambda: None)
    assert not sharded_checkpoints.available()
    with pytest.raises(ModelFormatError, match="several ranks"):
        checkpoints.load_latest(tmp_path)
