"""Trained weights in the shipped form: what goes in comes out, and what does not fit is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ttt_training.weights import export, load_trained, relative_error, unpacked

from ttt_memory import CompressedMemory
from ttt_memory.errors import ModelFormatError, ModelNotFoundError
from ttt_memory.model import catalogue
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.initialisation import initialised, pack, read_initialisation, reshaped, static_digest, unpack
from ttt_memory.model.registry import check_weights, load_model
from ttt_memory.model.tiny import tiny

NORM = "blocks.1.dynamic_norm"


def trained(seed: int = 0, size: float = 0.01) -> dict[str, torch.Tensor]:
    """Every dynamic weight of the tiny model, moved a little."""
    random = torch.Generator().manual_seed(seed)
    own = tiny().net.state_dict()
    names = [name for name in own if "w0_" in name] + ["inner_rates", NORM]
    return {name: own[name].float() + size * torch.randn(own[name].shape, generator=random) for name in names}


def shipped(path, weights=None, **changes):
    arguments = {"name": "tiny-ttt", "base_name": "tiny", "config": tiny().config, "training": {"tokens": 5}} | changes
    return export(tiny().net, trained() if weights is None else weights, path, **arguments)


@settings(deadline=None)
@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 9), st.sampled_from([0.0, 1e-30, 1e-4, 1.0, 1e20]))
def test_an_int8_row_is_at_most_half_a_scale_away(rows, columns, seed, size):
    change = size * torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    levels, scale = pack(change)
    assert levels.dtype == torch.int8
    assert bool(((unpack(levels, scale) - change).abs() <= 0.5001 * scale[:, None]).all())


def test_what_is_loaded_is_what_was_trained_but_for_the_rounding(tmp_path):
    weights = trained()
    file = shipped(tmp_path / "t.safetensors", weights)
    assert file.training == {"tokens": 5}
    assert file.config == tiny().config
    found = unpacked(tiny().net, file)
    assert set(found) == set(weights)
    for name, value in weights.items():
        if value.ndim == 1:
            assert torch.equal(found[name], value)
        else:
            step = (value - tiny().net.state_dict()[name].float()).abs().amax(dim=1) / 127
            assert bool(((found[name] - value).abs() <= 0.51 * step[:, None] + 1e-7).all())
    assert 0 < relative_error(tiny().net, weights, file) < 0.01
    assert file.path.stat().st_size < 40_000  # 24,576 int8 levels


def test_parameters_that_did_not_change_are_not_in_the_file(tmp_path):
    weights = trained()
    weights["blocks.1.w0_down"] = tiny().net.state_dict()["blocks.1.w0_down"].clone()
    file = shipped(tmp_path / "t.safetensors", weights)
    assert not any("w0_down" in key for key in file.tensors())


def test_who_may_read_the_file_is_what_the_user_set(tmp_path):
    plain = tmp_path / "plain"
    plain.touch()
    assert shipped(tmp_path / "t.safetensors").path.stat().st_mode == plain.stat().st_mode


def test_a_memory_opens_with_the_file_and_its_fingerprint_covers_w0(tmp_path):
    one = shipped(tmp_path / "one.safetensors").path
    two = shipped(tmp_path / "two.safetensors", trained(seed=1)).path
    models = [load_model(one), load_model(f"tiny::{two}"), tiny()]
    assert [model.name for model in models] == ["tiny-ttt", "tiny-ttt", "tiny"]
    assert len({model.fingerprint for model in models}) == 3
    assert len({model.initial_state().digest() for model in models}) == 3
    assert load_model(one) is models[0]
    assert tiny().net.state_dict()["blocks.1.w0_down"].abs().max() == 0  # the base stays as it was
    with CompressedMemory.open(f"sqlite:///{tmp_path}/m.db", model=one, embedder="hash") as memory:
        memory.ingest("The staging key is MOTH-1947. " * 20)
        digest = memory.stats().digest
    with CompressedMemory.open(f"sqlite:///{tmp_path}/m.db") as memory:
        assert memory.stats().digest == digest
        assert memory.verify(replay=True).ok


def test_a_shipped_file_is_a_model_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "SHIPPED", tmp_path)
    shipped(tmp_path / "tiny-ttt.safetensors")
    assert load_model("tiny-ttt").name == "tiny-ttt"
    assert catalogue.describe_model("tiny-ttt").state == "ready"
    check_weights("tiny-ttt")
    with pytest.raises(ModelNotFoundError):
        load_model("smaller-ttt")


def test_more_dynamic_blocks_than_the_base_has(tmp_path):
    config = replace(tiny().config, dynamic_layers=2)
    net = reshaped(tiny().net, config)
    tokens = torch.arange(40)[None] % 256
    assert torch.equal(net(tokens)[0], tiny().net(tokens)[0])
    assert torch.equal(net(tokens, net.initial_state())[0], tiny().net(tokens, tiny().net.initial_state())[0])
    own = net.state_dict()
    weights = {name: own[name].float() + 0.01 for name in own if "w0_" in name}
    model = load_model(shipped(tmp_path / "t.safetensors", weights, config=config).path)
    assert len(model.initial_state()) == 2
    assert reshaped(model.net, tiny().config).state_dict().keys() == tiny().net.state_dict().keys()


def test_what_does_not_fit_is_refused(tmp_path):
    path = tmp_path / "t.safetensors"
    with pytest.raises(ModelFormatError, match="finite"):
        shipped(path, {"inner_rates": torch.tensor([float("nan")])})
    with pytest.raises(ModelFormatError, match="no 'blocks"):
        shipped(path, {"blocks.1.w0_down": torch.zeros(3, 3)})
    assert list(tmp_path.iterdir()) == []  # nothing half-written
    file = shipped(path)
    other = reshaped(tiny().net, tiny().config)
    other.load_state_dict({**other.state_dict(), "final_norm": 2 * other.final_norm}, assign=True)
    assert static_digest(other) != static_digest(tiny().net)
    with pytest.raises(ModelFormatError, match="another base"):
        initialised(other, file)
    with pytest.raises(ModelFormatError):
        reshaped(tiny().net, replace(tiny().config, hidden=32, head_dim=8))
    with pytest.raises(ModelNotFoundError):
        load_model(f"tiny::{tmp_path}/absent.safetensors")


def test_other_files_are_no_initialisation(tmp_path):
    from safetensors.torch import save_file

    plain, cut = tmp_path / "plain.safetensors", tmp_path / "cut.safetensors"
    save_file({"a": torch.zeros(2)}, plain)
    cut.write_bytes(shipped(tmp_path / "t.safetensors").path.read_bytes()[:-500])
    for path in (plain, cut):
        with pytest.raises(ModelFormatError):
            load_model(path)
        with pytest.raises(ModelFormatError):
            read_initialisation(path).tensors()
    with pytest.raises(ModelFormatError):
        load_trained(cut)


def test_a_model_without_full_blocks_keeps_its_name():
    config = tiny().config
    assert "full_attention_every" not in config.to_dict()
    hybrid = replace(config, full_attention_every=2)
    assert ModelConfig.from_dict(hybrid.to_dict()) == hybrid
    assert ModelConfig.from_dict(config.to_dict()) == config


@pytest.mark.slow
@pytest.mark.smollm2
def test_the_real_model_in_its_shipped_size(tmp_path, smollm2):
    random = torch.Generator().manual_seed(0)
    own = smollm2.net.state_dict()
    weights = {n: own[n].float() + 2e-3 * torch.randn(own[n].shape, generator=random) for n in own if "w0_" in n}
    weights["inner_rates"] = 1.5 * own["inner_rates"]
    file = export(
        smollm2.net,
        weights,
        tmp_path / "t.safetensors",
        name="t",
        base_name="smollm2-135m",
        config=smollm2.config,
        training={},
    )
    assert file.path.stat().st_size <= 32_000_000
    assert relative_error(smollm2.net, weights, file) < 0.01
    learned = load_model(file.path)
    assert learned.net.dtype == smollm2.net.dtype
    assert learned.fingerprint != smollm2.fingerprint
    state = learned.initial_state()
    assert state.gate[0].dtype == torch.float32
    assert state.distance(smollm2.initial_state()) > 1
    assert load_model(f"smollm2-135m::{file.path}").fingerprint == learned.fingerprint
