"""Hostile files: bombs, entities, links out of the folder, pipes. Refused with a typed error, in bounded memory."""

import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import pytest

from tests.loaders import builders
from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders import files, limits, load

ROOT = Path(__file__).parents[2]
MIB = 1 << 20


@pytest.fixture
def refused(tmp_path):
    def check(name, data, match):
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(InvalidDocumentError, match=match):
            list(load(path))

    return check


def zeros(size):
    packer = zlib.compressobj(9)
    return b"".join(packer.compress(bytes(MIB)) for _ in range(size // MIB)) + packer.flush()


@pytest.mark.parametrize("part", ["word/document.xml", "word/media/image1.png", "unused.bin"])
def test_an_office_bomb_is_refused_before_it_is_unpacked(refused, part):
    body = b"<w:document " + builders.W.encode() + b">" + b" " * (30 * MIB) + b"</w:document>"
    refused("a.docx", builders.rezip(builders.docx(), replace={part: body}, add={"x" + part: body}), "bomb")


def test_many_parts_below_the_ratio_are_too_much_together(refused, monkeypatch):
    monkeypatch.setattr("ttt_memory.loaders.office.ARCHIVE_BYTES", MIB)
    refused(
        "a.docx",
        builders.rezip(builders.docx(), add={f"{n}.bin": os.urandom(MIB // 4) for n in range(5)}),
        "unpacks to",
    )
    monkeypatch.setattr("ttt_memory.loaders.office.ARCHIVE_ENTRIES", 5)
    refused("b.docx", builders.docx(), "parts")


def test_a_zip_that_lies_about_its_sizes_gains_nothing(tmp_path):
    body = f"<w:document {builders.W}><w:body>{'<w:p/>' * MIB}</w:body></w:document>".encode()
    data = builders.rezip(builders.docx(), replace={"word/document.xml": body})
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        true = archive.getinfo("word/document.xml").file_size
    path = tmp_path / "a.docx"
    path.write_bytes(data.replace(true.to_bytes(4, "little"), (1000).to_bytes(4, "little")))
    with pytest.raises(InvalidDocumentError):
        list(load(path))


ENTITY = '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/passwd">]>'
LAUGHS = '<?xml version="1.0"?><!DOCTYPE d [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {new} "{"&" + old + ";" * 1}{("&" + old + ";") * 9}">'
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize("prolog", [ENTITY, LAUGHS + "]>", "<!-- " + "x" * 200_000 + " -->" + ENTITY[21:]])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_xml_that_declares_entities_is_refused(refused, prolog, encoding):
    prolog = prolog.replace('version="1.0"', f'version="1.0" encoding="{encoding}"')
    body = f"{prolog}<w:document {builders.W}><w:body><w:p><w:r><w:t>&x;&j;</w:t></w:r></w:p></w:body></w:document>"
    refused(
        "a.docx", builders.rezip(builders.docx(), replace={"word/document.xml": body.encode(encoding)}), "document type"
    )
    slide = f"{prolog}<p:sld xmlns:p='http://schemas.openxmlformats.org/presentationml/2006/main'/>".encode(encoding)
    refused("a.pptx", builders.rezip(builders.pptx(), replace={"ppt/slides/slide1.xml": slide}), "document type")


def test_a_gzip_bomb_is_refused(tmp_path):
    path = tmp_path / "app.log.1.gz"
    path.write_bytes(gzip.compress(bytes(MIB) * 40 + b"\n"))
    with pytest.raises(InvalidDocumentError, match=r"bomb|NUL"):
        list(load(path))
    path.write_bytes(gzip.compress(b"a line of the same log\n" * (4 * MIB)))
    with pytest.raises(InvalidDocumentError, match="bomb"):
        list(load(path))
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b" " * 20 * MIB))
    with pytest.raises(InvalidDocumentError, match="bomb"):
        list(load(tmp_path / "a.txt.gz"))


def test_a_cut_gzip_is_refused(refused):
    refused("app.log.1.gz", gzip.compress(builders.log(1000))[:-20], "damaged|read")


def test_pdf_bombs_are_refused(refused, monkeypatch):
    page = b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 9 9] /Contents 4 0 R /Resources << >> >>"
    pages = b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>"
    bomb = zeros(200 * MIB)
    content = b"<< /Filter /FlateDecode /Length %d >>\nstream\n" % len(bomb) + bomb + b"\nendstream"
    refused("a.pdf", builders.assemble([b"<< /Type /Catalog /Pages 2 0 R >>", pages, page, content]), "read")
    # A page that draws itself again and again is ended by the clock.
    loop = builders.stream(b"/F Do " * 2000)
    form = loop.replace(b"<< ", b"<< /Type /XObject /Subtype /Form /Resources << /XObject << /F 5 0 R >> >> ", 1)
    page = page.replace(b"<< >>", b"<< /XObject << /F 4 0 R >> >>")
    monkeypatch.setattr("ttt_memory.loaders.pdf.PDF_PAGE_SECONDS", 0.2)
    heavy = builders.stream(b"BT (x) Tj ET " * 50_000)
    heavy = heavy.replace(b"<< ", b"<< /Type /XObject /Subtype /Form ", 1)
    objects = [b"<< /Type /Catalog /Pages 2 0 R >>", pages, page.replace(b"4 0 R >>", b"4 0 R >>"), form, heavy]
    refused("b.pdf", builders.assemble(objects), "longer than|no text")
    monkeypatch.setattr("ttt_memory.loaders.pdf.PDF_PAGES", 1)
    refused("c.pdf", builders.pdf(["a", "b"]), "2 pages")


def test_deep_nesting_is_refused_or_read(refused, tmp_path):
    refused("a.json", b"[" * 100_000 + b"]" * 100_000, "deep")
    refused("a.jsonl", b'{"a":' * 100_000, "deep")
    (tmp_path / "a.html").write_bytes(b"<div>" * 100_000 + b"bottom")
    assert next(load(tmp_path / "a.html")).text == "bottom"
    body = f"<w:document {builders.W}><w:body>{'<w:sdt>' * 5000}{'</w:sdt>' * 5000}</w:body></w:document>"
    refused("a.docx", builders.rezip(builders.docx(), replace={"word/document.xml": body}), "damaged")
    parts = b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(3000))
    refused("a.eml", b"From: a@example.org\n" + parts, "multiparts")


def test_mail_that_would_take_python_minutes_is_refused(refused, monkeypatch):
    refused("a.eml", b"From: a@example.org\nContent-Type: text/plain" + b';"' * 1_000_000, "Content- header")
    refused("b.eml", b"From: a@example.org\nContent-Type: text/plain;\n " + b'";\r\n ' * 1_000_000, "Content- header")
    monkeypatch.setattr("ttt_memory.loaders.mail.MULTIPART_LINES", 100)
    nested = b"".join(b"Content-Type: multipart/mixed; boundary=%d\n\n--%d\n" % (n, n) for n in range(20))
    refused("c.eml", b"From: a@example.org\n" + nested + b"text\n" * 100, "multiparts")


def test_odd_json_values_are_refused_or_written_as_text(refused, tmp_path):
    refused("a.json", b'[{"text": "half \\ud800 pair"}]', "Unicode")
    refused("a.jsonl", b'{"n": ' + b"9" * 100_000 + b"}\n", "JSON")
    (tmp_path / "b.json").write_bytes(b'[{"a": NaN, "b": 1e999, "c": 123456789012345678901234567890, "d": "\\u0000x"}]')
    document = next(load(tmp_path / "b.json"))
    assert json.loads(json.dumps(document.metadata, allow_nan=False)) == document.metadata


def test_a_cell_or_line_without_end_is_refused(refused):
    refused("a.csv", b"a,b\n" + b"x" * (2 * MIB), "longer|table")
    refused("b.csv", b'a,b\n"' + b"x\n" * MIB, "table")
    refused("a.jsonl", b'{"a": "' + b"x" * (2 * MIB) + b'"}', "longer")


def test_a_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    for name in ("a.txt", "a.html", "a.json", "a.eml"):
        with (tmp_path / name).open("wb") as out:
            out.truncate(limits.TEXT_BYTES + 1)
        with pytest.raises(InvalidDocumentError, match="larger"):
            list(load(tmp_path / name))
    for name in ("a.pdf", "a.docx", "a.pptx"):
        with (tmp_path / name).open("wb") as out:
            out.truncate(limits.BINARY_BYTES + 1)
        with pytest.raises(InvalidDocumentError, match="larger"):
            list(load(tmp_path / name))


def test_pipes_devices_and_missing_files_are_refused(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    for path in (tmp_path / "pipe.txt", Path("/dev/zero"), tmp_path / "none.pdf", tmp_path / "a.txt" / "b.txt"):
        with pytest.raises(InvalidDocumentError):
            list(load(path))


def test_links_are_not_followed_in_folders(tmp_path):
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key.txt").write_text("outside")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "real.txt").write_text("inside")
    (inside / "link.txt").symlink_to(secret / "key.txt")
    (inside / "folder").symlink_to(secret)
    (inside / "loop").symlink_to(inside)
    (inside / "dangling.txt").symlink_to(inside / "nothing.txt")
    assert [document.text for document in load(inside)] == ["inside"]
    assert [document.text for document in load(inside / "link.txt")] == ["outside"]  # named by the caller
    with (
        pytest.raises(InvalidDocumentError),
        files.opened(inside / "link.txt", format="text", suffix=".txt", gzipped=False, links=False),
    ):
        pass


MEASURE = """
import resource, sys
from pathlib import Path
import docx, pypdf
from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders import load
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
characters = 0
for name in sys.argv[1:]:
    try:
        for document in load(Path(name)):
            characters += len(document.text)
    except InvalidDocumentError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024, characters)
"""


def test_memory_stays_bounded(tmp_path):
    (tmp_path / "bomb.log.gz").write_bytes(gzip.compress(b"the same line\n" * (8 * MIB)))
    body = b"<w:document " + builders.W.encode() + b">" + b" " * (300 * MIB)
    (tmp_path / "bomb.docx").write_bytes(builders.rezip(builders.docx(), replace={"word/document.xml": body}))
    del body
    with (tmp_path / "long.log").open("wb") as out:  # 30 MB of a log, far more than may be held at once
        for start in range(0, 1_000_000, 100_000):
            out.write(builders.log(100_000, start))
    with (tmp_path / "long.csv").open("wb") as out:
        out.write(b"a,b\n" + b"1,some words in a row\n" * 100_000)
    names = [str(tmp_path / name) for name in ("bomb.log.gz", "bomb.docx", "long.log", "long.csv")]
    done = subprocess.run([sys.executable, "-c", MEASURE, *names], capture_output=True, text=True, check=True, cwd=ROOT)
    grown, characters = map(int, done.stdout.split())
    assert characters > 25_000_000
    assert grown < 24  # MiB
