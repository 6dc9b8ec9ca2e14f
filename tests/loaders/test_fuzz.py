"""Damaged files, by seed: every loader gives documents that can be kept, or a typed error. Nothing else, and soon."""

import io
import json
import os
import random
import sys
import time
import zipfile

import pytest

from tests.loaders import builders
from ttt_memory.errors import InvalidDocumentError, UnsupportedFileError
from ttt_memory.inputs import check
from ttt_memory.loaders import load

DEFAULT, FULL = 200, 2_000
SECONDS = 60  # far above what any took (1 s): it only ends what would hang
CHARACTERS = 10_000_000
TOKENS = (
    [b"\0", b"\xff\xfe", b"\r", b"\n", b'"', b"{", b"[", b"]}", b"<", b"</", b"&#", b">>", b"<<", b"/", b"%%EOF", b"stream", b"endobj"]
    + [b"99999999999", b"-1", b"1e999", b"\\ud800", b"0 R", b"/Kids", b"/Prev 9", b"/Length 999999", b"--", b"\xf0\x9f\x9a\xa2", b"PK\x01\x02"]
    + [b"<!DOCTYPE x>", b"=?utf-7?B?//8=?=", b"Content-Type: multipart/mixed; boundary=x\n\n", b"; charset=idna", b"NaN", b"null", b"\x1f\x8b"]
)  # fmt: skip


def mutated(data, rng):
    """The file with a few bytes changed, parts moved, repeated or cut, or tokens of its grammar put in."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at, kind = rng.randrange(len(out) + 1), rng.randrange(7)
        end = min(len(out), at + rng.choice((1, 4, 64, 1024)))
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at:at] = rng.choice(TOKENS)
        elif kind == 2:
            del out[at:end]
        elif kind == 3:
            out[at:at] = out[at:end] * rng.choice((1, 2, 50))
        elif kind == 4:
            out[at:end] = rng.randbytes(end - at)
        elif kind == 5:
            del out[at:]
        else:
            start = rng.randrange(len(out) + 1)
            out[at:end] = out[start : start + end - at]
        if not out:
            break
    return bytes(out)


def mutated_inside(data, rng):
    """An Office file with one part damaged and the archive whole, for damage to the archive is found at once."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [entry.filename for entry in archive.infolist() if entry.filename.endswith((".xml", ".rels"))]
        name = rng.choice([*names, *[one for one in names if "document" in one or "slide1" in one] * 5])
        return builders.rezip(data, replace={name: mutated(archive.read(name), rng)})


def inputs(name, data, rng, count):
    for _ in range(count):
        if name.endswith(("docx", "pptx")) and rng.random() < 0.6:
            yield mutated_inside(data, rng)
        elif name.endswith("pdf") and rng.random() < 0.5:
            yield mutated(builders.pdf(["First page.", "Second."], compress=False), rng)
        else:
            yield mutated(data, rng)


@pytest.mark.parametrize(("name", "data"), builders.SAMPLES.values(), ids=builders.SAMPLES.keys())
def test_damaged_files_give_documents_or_typed_errors(tmp_path, name, data):
    fuzz(tmp_path, name, data, range(DEFAULT // 20))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "data"), builders.SAMPLES.values(), ids=builders.SAMPLES.keys())
def test_two_thousand_damaged_files_each(tmp_path, name, data):
    fuzz(tmp_path, name, data, range(FULL // 20))


def fuzz(folder, name, data, seeds):
    path, slowest, read, refused = folder / name, 0.0, 0, 0
    for seed in seeds:
        for number, body in enumerate(inputs(name, data, random.Random(f"{name} {seed}"), 20)):
            path.write_bytes(body)
            started = time.monotonic()
            try:
                for document in load(path):
                    assert len(document.text) < CHARACTERS
                    json.dumps(document.metadata, allow_nan=False).encode()
                    document.text.encode()
                    if document.text.strip():
                        check(document)
                read += 1
            except (InvalidDocumentError, UnsupportedFileError) as error:
                refused += 1
                assert error.what, (seed, number)
            slowest = max(slowest, time.monotonic() - started)
            assert slowest < SECONDS, (seed, number)
    print(f"{name}: {read} read, {refused} refused, slowest {slowest:.2f} s, {sys.platform}, {os.cpu_count()} cores")
    assert read
