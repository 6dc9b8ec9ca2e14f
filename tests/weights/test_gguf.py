"""The GGUF reader: bit-equal to the format's reference, and unmoved by damaged files."""

import contextlib
import struct

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.weights.helpers import byte_level, small_llama, write_gguf
from ttt_memory.errors import ModelFormatError
from ttt_memory.model.gguf import GGUFFile
from ttt_memory.model.gguf_quants import QUANTS, dequantise

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("kind", QUANTS, ids=[quant.name for quant in QUANTS.values()])
def test_random_blocks_dequantise_to_the_same_bits(kind):
    random = np.random.default_rng(kind)
    raw = random.integers(0, 256, (301, QUANTS[kind].block_bytes)).astype(np.uint8)
    expected = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind)).reshape(-1)
    np.testing.assert_array_equal(dequantise(raw.reshape(-1), kind).view(np.uint32), expected.view(np.uint32))


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "small.gguf", small_llama(), byte_level())


def test_metadata_and_tensors_are_what_the_reference_reader_sees(small):
    ours, theirs = GGUFFile(small), gguf.GGUFReader(small)
    assert set(ours.tensors) == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(ours.tensor(tensor.name), expected)
    for key, field in theirs.fields.items():
        if not key.startswith("GGUF."):
            value = ours.metadata[key]
            assert (value.tolist() if isinstance(value, np.ndarray) else value) == field.contents()


@pytest.mark.parametrize("version", [2, 3])
def test_scalars_and_arrays_of_every_type(tmp_path, version):
    values = {4: ("<I", 7), 5: ("<i", -7), 6: ("<f", 0.5), 7: ("<?", True), 10: ("<Q", 2**40), 12: ("<d", 0.1)}
    body = b""
    for kind, (layout, value) in values.items():
        key = f"k{kind}".encode()
        body += struct.pack("<Q", len(key)) + key + struct.pack("<I", kind) + struct.pack(layout, value)
    path = tmp_path / "a.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", version, 0, len(values)) + body)
    assert GGUFFile(path).metadata == {f"k{kind}": value for kind, (_, value) in values.items()}


def _read_everything(path):
    file = GGUFFile(path)
    for name in file.tensors:
        file.tensor(name)


@QUIET
@given(data=st.data())
def test_a_file_cut_short_is_refused(small, tmp_path, data):
    whole = small.read_bytes()
    length = data.draw(st.integers(0, len(whole) - 1))
    path = tmp_path / "cut.gguf"
    path.write_bytes(whole[:length])
    with pytest.raises(ModelFormatError):
        _read_everything(path)


@QUIET
@given(data=st.data())
def test_a_damaged_header_is_read_or_refused_but_never_crashes(small, tmp_path, data):
    damaged = bytearray(small.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, 6000))
        damaged[position] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged)
    with contextlib.suppress(ModelFormatError):  # any other exception fails the test
        _read_everything(path)


@QUIET
@given(st.binary(max_size=200))
def test_garbage_after_the_magic_is_refused(tmp_path, noise):
    path = tmp_path / "noise.gguf"
    path.write_bytes(b"GGUF" + struct.pack("<I", 3) + b"\xff" * 4 + noise)
    with pytest.raises(ModelFormatError):
        _read_everything(path)


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"", "empty"),
        (b"GGUX" + b"\0" * 40, "begin"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "announces"),
        (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**50) + b"\0" * 8, "announces"),
    ],
)
def test_hostile_counts_are_refused_before_anything_is_allocated(tmp_path, header, reason):
    path = tmp_path / "bad.gguf"
    path.write_bytes(header)
    with pytest.raises(ModelFormatError, match=reason):
        GGUFFile(path)


def test_unknown_number_formats_are_named(tmp_path):
    path = tmp_path / "iq.gguf"
    info = struct.pack("<Q", 1) + b"t" + struct.pack("<IQIQ", 1, 256, 16, 0)
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 1, 0) + info + b"\0" * 256)
    with pytest.raises(ModelFormatError, match="number format 16"):
        GGUFFile(path)
