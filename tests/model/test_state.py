from __future__ import annotations

import hashlib

import pytest
import torch

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.config import InnerConfig
from ttt_memory.model.loaded import fingerprint_of
from ttt_memory.model.state import FastWeights
from ttt_memory.model.tiny import CONFIG, ByteTokenizer, tiny


def some(seed: int = 0) -> FastWeights:
    generator = torch.Generator().manual_seed(seed)
    return FastWeights(
        gate=tuple(torch.randn(3, 2, generator=generator) for _ in range(2)),
        up=tuple(torch.randn(3, 2, generator=generator) for _ in range(2)),
        down=tuple(torch.randn(2, 3, generator=generator) for _ in range(2)),
    )


def test_names_round_trip_in_any_order() -> None:
    state = some()
    assert list(state.tensors()) == ["00.gate", "00.up", "00.down", "01.gate", "01.up", "01.down"]
    shuffled = dict(reversed(state.tensors().items()))
    assert FastWeights.from_tensors(shuffled).digest() == state.digest()
    with pytest.raises(ModelFormatError, match="not a set of fast weights"):
        FastWeights.from_tensors({"00.gate": torch.zeros(1)})
    with pytest.raises(ModelFormatError, match="one gate, up and down"):
        FastWeights(gate=(torch.zeros(1),), up=(), down=())


def test_the_digest_is_of_names_shapes_and_little_endian_bytes() -> None:
    state = some()
    sha = hashlib.sha256()
    for name, tensor in state.tensors().items():
        sha.update(f"{name}:{'x'.join(map(str, tensor.shape))};".encode())
        sha.update(tensor.numpy().astype("<f4").tobytes())
    assert state.digest() == sha.hexdigest()
    assert some(1).digest() != state.digest()
    strided = FastWeights(tuple(t.T.contiguous().T for t in state.gate), state.up, state.down)
    assert strided.digest() == state.digest()
    nudged = state.tensors()
    nudged["01.up"] = nudged["01.up"].clone()
    nudged["01.up"][0, 0] += 1e-7
    assert FastWeights.from_tensors(nudged).digest() != state.digest()


def test_size_distance_and_finiteness() -> None:
    state = some()
    assert state.nbytes == 6 * 6 * 4
    assert state.distance(state) == 0
    moved = FastWeights(tuple(t + 1 for t in state.gate), state.up, state.down)
    assert state.distance(moved) == pytest.approx(12**0.5, rel=1e-6)
    assert state.is_finite()
    assert not FastWeights(tuple(t / 0 for t in state.gate), state.up, state.down).is_finite()
    with pytest.raises(ModelFormatError, match="no distance"):
        state.distance(FastWeights((), (), ()))


def test_tiny_is_the_same_everywhere_and_small() -> None:
    """The literal digest holds the weights to every machine and version: a change is a new model."""
    model = tiny()
    assert tiny() is model
    assert sum(parameter.numel() for parameter in model.net.parameters()) < 1_000_000
    assert model.initial_state().digest() == "e8bfaaa682e2fc59e06d09fd0789f2add2743004bb285328afad9db31fa293ba"
    assert model.config.segment_tokens == 512


def test_the_fingerprint_covers_all_that_decides_a_state() -> None:
    base = fingerprint_of("b", "w", "t", CONFIG)
    others = [
        fingerprint_of("B", "w", "t", CONFIG),
        fingerprint_of("b", "W", "t", CONFIG),
        fingerprint_of("b", "w", "T", CONFIG),
        fingerprint_of("b", "w", "t", type(CONFIG)(**{**vars(CONFIG), "inner": InnerConfig(rate=0.1)})),
    ]
    assert len({base, *others}) == 5


def test_bytes_round_trip_and_marks_in_text_are_text() -> None:
    tokenizer = ByteTokenizer()
    for text in ("", "plain", "é🙂\x00\n", "<|im_start|>"):
        ids = tokenizer.encode(text)
        assert ids.dtype.name == "int32"
        assert tokenizer.decode(ids) == text
        assert (ids < 256).all()
    assert tokenizer.decode_bytes([104, 256, 105, 258]) == b"hi"
    chat = tokenizer.chat([("user", "hi")], generation_prompt=True)
    assert chat.tolist()[:2] == [256, 257]
    assert tokenizer.decode(chat) == "user\nhiassistant\n"
