"""Local models of both formats: converted once, whole or not at all, and equal to `transformers`."""

import json
import multiprocessing
import os
import sys
import threading
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch

from tests.weights.helpers import byte_level, small_llama, write_folder, write_gguf
from tests.weights.worker import prepare_into
from ttt_memory import CompressedMemory
from ttt_memory.errors import CorruptionError, ModelFormatError, ModelNotFoundError
from ttt_memory.model import base_store
from ttt_memory.model.base_store import prepare
from ttt_memory.model.catalogue import describe_model, list_models, models_dir, remove_model
from ttt_memory.model.llama_source import open_llama
from ttt_memory.model.registry import check_weights, default_dtype, load_model

pytestmark = pytest.mark.usefixtures("own_cache")
TOKENS = torch.arange(3, 53)[None]


@pytest.fixture(scope="module")
def llama():
    return small_llama()


@pytest.fixture
def folder(tmp_path, llama):
    return write_folder(tmp_path / "My Model", llama, byte_level())


def _logits(model, tokens):
    with torch.no_grad():
        return model.net(tokens)[0]


def _reference(llama, tokens):
    with torch.no_grad():
        return llama(tokens).logits


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("shape", ["one file", "shards", "gguf"])
def test_logits_are_those_of_transformers(tmp_path, shape, tied):
    llama = small_llama(tied=tied)
    if shape == "gguf":
        path = write_gguf(tmp_path / "m.gguf", llama, byte_level())
    else:
        path = write_folder(
            tmp_path / "m", llama, byte_level(), **({"max_shard_size": "40KB"} if shape == "shards" else {})
        )
        assert (path / "model.safetensors.index.json").exists() == (shape == "shards")
    model = load_model(path, dtype=torch.float32)
    torch.testing.assert_close(_logits(model, TOKENS), _reference(llama, TOKENS), atol=1e-3, rtol=1e-3)
    assert model.tokenizer.encode("The river 12").tolist() == byte_level().encode("The river 12").ids
    assert model.tokenizer.stop_tokens == {0, 2}


def test_both_formats_hold_the_same_tensors(tmp_path, llama, folder):
    ours, theirs = open_llama(write_gguf(tmp_path / "m.gguf", llama, byte_level())), open_llama(folder)
    assert set(ours.tensors) == set(theirs.tensors)
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in theirs.tensors)


def test_a_second_load_is_the_same_object_and_converts_nothing(folder, monkeypatch):
    first = load_model(folder)
    monkeypatch.setattr(base_store, "_convert", None)
    assert load_model(folder) is first
    assert load_model(str(folder)) is first
    assert prepare(folder).folder.name.startswith("my-model-")


def test_threads_that_load_together_get_one_model(folder):
    found = []
    threads = [threading.Thread(target=lambda: found.append(load_model(folder))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 6
    assert all(model is found[0] for model in found)


def test_fingerprints_name_bytes_and_not_precision(tmp_path, llama, folder):
    model = load_model(folder, dtype=torch.bfloat16)
    assert load_model(folder, dtype=torch.float32).fingerprint == model.fingerprint
    assert model.compute_dtype == torch.bfloat16
    gguf_model = load_model(write_gguf(tmp_path / "m.gguf", llama, byte_level()), dtype=torch.bfloat16)
    assert prepare(tmp_path / "m.gguf").manifest["sha256"] == prepare(folder).manifest["sha256"]
    with torch.no_grad():
        llama.lm_head.weight[7] += 1
    other = write_folder(tmp_path / "other", llama, byte_level())
    with torch.no_grad():
        llama.lm_head.weight[7] -= 1
    assert load_model(other).fingerprint not in {model.fingerprint, gguf_model.fingerprint}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads the process's memory map from /proc")
def test_weights_are_memory_mapped(folder):
    load_model(folder, dtype=torch.bfloat16)
    assert str(prepare(folder).weights) in Path("/proc/self/maps").read_text()


def test_the_default_precision_is_what_the_machine_multiplies(folder):
    assert default_dtype() in {torch.bfloat16, torch.float32}
    assert load_model(folder).compute_dtype == default_dtype()
    assert load_model("tiny").compute_dtype == torch.float32


def test_changed_files_are_another_model(folder, llama):
    before = prepare(folder)
    write_folder(folder, llama, byte_level(size=390))
    os.utime(folder / "tokenizer.json", ns=(1, 1))
    assert prepare(folder).folder != before.folder


def test_a_failed_conversion_leaves_nothing(folder):
    def fail(done, total):
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prepare(folder, progress=fail)
    assert list(models_dir().iterdir()) == []
    seen = []
    prepare(folder, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] == len(seen)


def test_incomplete_conversions_are_made_again(folder):
    converted = prepare(folder)
    converted.weights.write_bytes(converted.weights.read_bytes()[:1000])
    assert prepare(folder).weights.stat().st_size == converted.manifest["bytes"]


def test_processes_that_convert_together_agree(folder, own_cache):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=prepare_into, args=(folder, str(own_cache), results)) for _ in range(2)]
    for process in processes:
        process.start()
    digests = {results.get(timeout=120) for _ in processes}
    for process in processes:
        process.join()
    assert digests == {prepare(folder).manifest["sha256"]}
    assert len(list(models_dir().iterdir())) == 1


def test_damage_is_found_by_hashing_again(folder):
    check_weights(folder)
    check_weights("tiny")
    weights = prepare(folder).weights
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(CorruptionError, match="SHA-256"):
        check_weights(folder)


def test_local_models_are_listed_described_and_removed(folder):
    path = prepare(folder).folder
    by_name, by_path = describe_model("my-model"), describe_model(folder)
    assert by_name == by_path
    assert by_name.path == path
    assert by_name.parameters == sum(p.numel() for p in small_llama().parameters())
    assert remove_model("my-model") == by_name.bytes
    assert not path.exists()
    assert "my-model" not in {info.name for info in list_models()}
    assert (folder / "model.safetensors").exists()
    with pytest.raises(ModelNotFoundError):
        remove_model("my-model")


def test_absent_default_weights_name_the_command_that_fetches_them():
    with pytest.raises(ModelNotFoundError) as caught:
        load_model("smollm2-135m")
    assert caught.value.fix == "ttt-memory model pull"


@pytest.mark.parametrize("spec", ["no-such-model", "minilm", "./nowhere.gguf"])
def test_unknown_models_are_not_found(spec):
    with pytest.raises(ModelNotFoundError, match=r"smollm2-135m"):
        load_model(spec)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"model_type": "mistral"}, "mistral"),
        ({"attention_bias": True}, "bias"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0}}, "llama3"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear", "factor": 2.0}}, "linear"),
        ({"hidden_size": 128}, "fit"),
        ({"num_hidden_layers": 5}, "model.layers.4"),
        ({"vocab_size": 401}, "401"),
    ],
)
def test_other_architectures_are_refused(folder, change, reason):
    config = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelFormatError, match=reason):
        load_model(folder)
    assert not models_dir().exists() or list(models_dir().iterdir()) == []


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff" * 100])
def test_folders_with_damaged_files_are_refused(folder, name, content):
    if content is None:
        (folder / name).unlink()
    else:
        (folder / name).write_bytes(content)
    with pytest.raises(ModelFormatError):
        load_model(folder)


def test_an_index_cannot_point_outside_its_folder(tmp_path, llama):
    inside = write_folder(tmp_path / "m", llama, byte_level(), max_shard_size="40KB")
    index = inside / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    (tmp_path / "stolen.safetensors").write_bytes(b"secret")
    values["weight_map"] = dict.fromkeys(values["weight_map"], "../stolen.safetensors")
    index.write_text(json.dumps(values))
    with pytest.raises(ModelFormatError, match="not in the folder"):
        load_model(inside)


def test_weights_that_are_not_finite_are_refused(tmp_path, llama):
    broken = small_llama()
    with torch.no_grad():
        broken.model.layers[1].mlp.up_proj.weight[0, 0] = float("nan")
    with pytest.raises(ModelFormatError, match="finite"):
        load_model(write_folder(tmp_path / "nan", broken, byte_level()))


def test_gguf_files_of_other_architectures_are_refused(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "o.gguf", "gemma")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(ModelFormatError):
        load_model(tmp_path / "o.gguf")


def test_a_file_of_another_kind_is_refused(tmp_path):
    (tmp_path / "weights.bin").write_bytes(b"x")
    with pytest.raises(ModelFormatError, match="neither"):
        load_model(tmp_path / "weights.bin")


def test_a_memory_on_a_local_model_relearns_and_opens_again(folder, tmp_path):
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with CompressedMemory.open(url, model=folder, embedder="hash") as memory:
        memory.ingest("The ferry leaves at noon.")
        digest = memory.stats().digest
        memory.rederive()
    with CompressedMemory.open(url, embedder="hash") as memory:
        assert memory.stats().digest == digest
