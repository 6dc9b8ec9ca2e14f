"""The snapshot codec: exact, self-describing, and no damaged byte passes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ttt_memory.errors import CorruptionError, InvalidInputError, ModelMismatchError, StoreVersionError
from ttt_memory.snapshots import codec

GOLDEN = Path(__file__).parent / "golden" / "format1.safetensors"
SHAPES = {"00.gate": (3, 5), "00.up": (3, 5), "00.down": (5, 3), "01.gate": (), "01.up": (0, 4)}


def small() -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors and base from integer arithmetic alone, with every odd kind of float among them."""
    base, tensors = {}, {}
    for number, (name, shape) in enumerate(SHAPES.items()):
        size = int(np.prod(shape, dtype=np.int64))
        steps = (np.arange(size, dtype=np.float32) * 7 + number) % 11 - 5
        base[name] = (steps / 64).astype(np.float32).reshape(shape)
        tensors[name] = (steps / 64 + (steps % 3) / 4096).astype(np.float32).reshape(shape)
    odd = [0x80000000, 0x00000001, 0x7F800000, 0xFF800000, 0x7FC12345, 0x7F7FFFFF]
    tensors["00.up"].reshape(-1)[: len(odd)] = np.array(odd, dtype=np.uint32).view(np.float32)
    return tensors, base


def same_bits(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return list(a) == list(b) and all(
        a[name].shape == b[name].shape and a[name].tobytes() == b[name].tobytes() for name in a
    )


floats = hnp.arrays(np.uint32, st.shared(hnp.array_shapes(max_dims=3, max_side=9), key="shape")).map(
    lambda bits: bits.view(np.float32)
)


@given(floats, floats, st.dictionaries(st.text(), st.text(), max_size=3))
def test_any_bits_come_back(tensor: Any, base: Any, meta: dict[str, str]) -> None:
    back, meta_back = codec.decode(codec.encode({"w": tensor}, {"w": base}, meta=meta), {"w": base})
    assert same_bits(back, {"w": tensor})
    assert meta_back == meta


def test_larger_than_a_piece() -> None:
    rng = np.random.default_rng(0)
    base = {"w": rng.standard_normal(codec.PIECE + 17, dtype=np.float32)}
    tensors = {"w": base["w"] + rng.standard_normal(base["w"].shape, dtype=np.float32) * np.float32(1e-4)}
    data = codec.encode(tensors, base)
    assert same_bits(codec.decode(data, base)[0], tensors)
    assert len(data) < 0.7 * base["w"].nbytes


def test_unchanged_weights_take_almost_nothing() -> None:
    base = {"w": np.random.default_rng(0).standard_normal(100_000, dtype=np.float32)}
    assert len(codec.encode(base, base)) < 2_000


def test_header_describes_the_file() -> None:
    tensors, base = small()
    data = codec.encode(tensors, base, meta={"model": "tiny"})
    header = codec.read_header(data)
    assert header.shapes == SHAPES
    assert header.meta == {"model": "tiny"}
    assert header.digest == codec.digest(tensors)
    assert header.base_digest == codec.digest(base)
    assert data == codec.encode(tensors, base, meta={"model": "tiny"})


def test_any_safetensors_reader_opens_it() -> None:
    tensors, base = small()
    planes = safetensors.numpy.load(codec.encode(tensors, base))
    assert set(planes) == {f"{name}.{plane}" for name in SHAPES for plane in range(codec.PLANES)}


def test_every_single_byte_flip_is_noticed() -> None:
    tensors, base = small()
    data = bytearray(codec.encode(tensors, base, meta={"note": "x" * 20}))
    for place in range(len(data)):
        for mask in (0x01, 0x20, 0x80):
            data[place] ^= mask
            with pytest.raises(CorruptionError):
                codec.decode(bytes(data), base)
            data[place] ^= mask
    codec.decode(bytes(data), base)


@settings(max_examples=60)
@given(st.data())
def test_truncation_and_garbage_are_noticed(data: st.DataObject) -> None:
    tensors, base = small()
    whole = codec.encode(tensors, base)
    cut = data.draw(st.integers(0, len(whole) - 1))
    tail = data.draw(
        st.binary(max_size=40).filter(lambda tail: tail != whole[cut : cut + len(tail)] or len(tail) < len(whole) - cut)
    )
    damaged = whole[:cut] + tail
    with pytest.raises(CorruptionError):
        codec.decode(damaged, base)
    with pytest.raises(CorruptionError):
        codec.decode(whole + b"\0", base)


def test_another_base_is_refused() -> None:
    tensors, base = small()
    data = codec.encode(tensors, base)
    other = {name: tensor.copy() for name, tensor in base.items()}
    other["00.gate"][0, 0] = -0.0 if not np.signbit(other["00.gate"][0, 0]) else 1.0
    with pytest.raises(ModelMismatchError):
        codec.decode(data, other)
    with pytest.raises(ModelMismatchError):
        codec.decode(data, {"w": base["00.gate"]})


def test_what_does_not_fit_the_base_is_refused() -> None:
    tensors, base = small()
    for bad in (
        {**tensors, "extra": np.zeros(1, np.float32)},
        {name: tensor for name, tensor in tensors.items() if name != "00.up"},
        {**tensors, "00.up": tensors["00.up"].astype(np.float64)},
        {**tensors, "00.up": tensors["00.up"].reshape(-1)},
    ):
        with pytest.raises(InvalidInputError):
            codec.encode(bad, base)


def test_a_newer_format_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors, base = small()
    monkeypatch.setattr(codec, "VERSION", 2)
    data = codec.encode(tensors, base)
    monkeypatch.undo()
    with pytest.raises(StoreVersionError):
        codec.decode(data, base)


def test_format_1_is_read_for_ever() -> None:
    """The stored file was written by the first release. zstd may compress otherwise, so only reading is frozen."""
    tensors, base = small()
    back, meta = codec.decode(GOLDEN.read_bytes(), base)
    assert same_bits(back, tensors)
    assert meta == {"note": "format 1"}
    assert codec.read_header(GOLDEN.read_bytes()).digest == (
        "a918cf4fd0d7560d70f1005b0ee01df3c375b8129a51a746743b577cf93bb930"
    )
