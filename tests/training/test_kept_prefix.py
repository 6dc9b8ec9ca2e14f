"""Outputs of a frozen prefix on disk: the same bits, found by what was read, never in the way."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from outer import MIXED, Words, network, segment
from ttt_training.adjoint import OuterGradient, Recall, outer_gradient
from ttt_training.config import TrainConfig
from ttt_training.errors import TrainingConfigError
from ttt_training.kept_prefix import KeptPrefix
from ttt_training.prefix import Prefix
from ttt_training.trainer import train

from ttt_memory.model.config import InnerConfig
from ttt_memory.model.transformer import Transformer

DYNAMIC = ["blocks.1.w0_gate_up", "blocks.1.w0_down", "blocks.2.w0_gate_up", "blocks.2.w0_down", "inner_rates"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with every block of tokens that the prefix computes."""
    done, original = [], Prefix.read

    def read(self: Prefix, step: object) -> torch.Tensor:
        done.append(1)
        return original(self, step)  # type: ignore[arg-type]

    monkeypatch.setattr(Prefix, "read", read)
    return done


def gradient(net: Transformer, folder: Path, **options: object) -> OuterGradient:
    return outer_gradient(net, MIXED, parameters=DYNAMIC, kept_prefix=KeptPrefix(folder, net), **options)  # type: ignore[arg-type]


def same(one: OuterGradient, other: OuterGradient) -> bool:
    return one.loss == other.loss and all(torch.equal(one.grads[name], other.grads[name]) for name in DYNAMIC)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_kept_outputs_give_the_same_bits(tmp_path: Path, reads: list[int], dtype: torch.dtype) -> None:
    net = network(dtype=dtype)
    plain = outer_gradient(net, MIXED, parameters=DYNAMIC)
    first, computed = gradient(net, tmp_path), len(reads)
    assert same(plain, first)
    assert same(first, gradient(net, tmp_path))
    assert len(reads) == computed


def test_a_control_and_another_recall_span_find_what_a_run_kept(tmp_path: Path, reads: list[int]) -> None:
    net = network()
    gradient(net, tmp_path)
    reads.clear()
    gradient(net, tmp_path, writes=False)
    assert not reads
    spans = len(list(tmp_path.rglob("*.safetensors")))
    assert spans == len(MIXED)
    gradient(net, tmp_path, recall=Recall(0.5, segment(5, 9, seed=4)))
    assert len(list(tmp_path.rglob("*.safetensors"))) == spans + 1


def test_another_network_or_another_cut_finds_nothing(tmp_path: Path, reads: list[int]) -> None:
    net = network()
    gradient(net, tmp_path)
    other = network()
    with torch.no_grad():
        other.blocks[0].qkv[0, 0] += 1e-9
    for one in (other, network(window=17), network(full_attention_every=2)):
        reads.clear()
        gradient(one, tmp_path)
        assert reads
    reads.clear()
    gradient(network(inner=InnerConfig(mini_batch=6, rate=0.7)), tmp_path)
    assert reads


def test_a_damaged_file_is_made_again(tmp_path: Path, reads: list[int]) -> None:
    net = network()
    expected = gradient(net, tmp_path)
    for file in tmp_path.rglob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-8])
    assert same(expected, gradient(net, tmp_path))
    reads.clear()
    assert same(expected, gradient(net, tmp_path))
    assert not reads


def test_what_cannot_be_kept_does_not_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    net = network()
    expected = gradient(net, tmp_path / "room")
    monkeypatch.setattr("ttt_training.kept_prefix.save_file", full)
    kept = KeptPrefix(tmp_path / "full", net)
    with pytest.warns(UserWarning, match="no longer kept"):
        found = outer_gradient(net, MIXED, parameters=DYNAMIC, kept_prefix=kept)
    assert same(expected, found)
    assert same(expected, outer_gradient(net, MIXED, parameters=DYNAMIC, kept_prefix=kept))  # and warns only once
    assert not list((tmp_path / "full").rglob("*.*"))


def test_training_with_it_gives_the_bits_of_training_without(tmp_path: Path, reads: list[int]) -> None:
    config = TrainConfig(steps=3)
    results = []
    for name, folder in (("plain", None), ("keeps", tmp_path / "kept"), ("finds", tmp_path / "kept")):
        reads.clear()
        net = network(dtype=torch.float32)
        train(net, Words(), config, tmp_path / name, progress=False, keep_prefix=folder)
        results.append(net.state_dict())
    assert not reads
    assert all(torch.equal(results[0][name], one[name]) for one in results[1:] for name in results[0])


def test_a_prefix_that_is_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingConfigError, match="frozen"):
        train(network(), Words(), TrainConfig(steps=1, train="all"), tmp_path / "run", keep_prefix=tmp_path / "kept")
    assert not (tmp_path / "kept").exists()
    (tmp_path / "file").write_text("")
    with pytest.raises(TrainingConfigError, match="Cannot keep"):
        train(network(), Words(), TrainConfig(steps=1), tmp_path / "run", keep_prefix=tmp_path / "file")
