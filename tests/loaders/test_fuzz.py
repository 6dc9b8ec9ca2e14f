"""Damaged files, by seed: every loader gives documents that can be kept, or a typed error. Nothing else, and soon."""

import io
import json
import random
import resource
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
GROWTH = 256  # MiB, of the whole process; the samples are some kilobytes
TOKENS = [token.encode("latin-1") for token in (
    "\0", "\xff\xfe", "\r", "\n", '"', "{", "[", "]}", "<", "</", "&#", ">>", "<<", "/", "%%EOF", "stream", "endobj",
    "--", "99999999999", "-1", "1e999", "\\ud800", "0 R", "/Kids", "/Prev 9", "/Length 999999", "\xf0\x9f\x9a\xa2",
    "PK\x01\x02", "<!DOCTYPE x>", "=?utf-7?B?//8=?=", "Content-Type: multipart/mixed; boundary=x\n\n",
    "; charset=idna", "NaN", "null",
)]  # fmt: skip


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


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


def fuzz(folder, name, data, seeds):
    path, slowest, read, refused = folder / name, 0.0, 0, 0
    before = peak()
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
            except (InvalidDocumentError, UnsupportedFileError):
                refused += 1
            slowest = max(slowest, time.monotonic() - started)
            assert slowest < SECONDS, (seed, number)
    grown = peak() - before
    print(f"{name}: {read} read, {refused} refused, slowest {slowest:.2f} s, memory grew by {grown} MiB")
    assert read
    assert grown < GROWTH
