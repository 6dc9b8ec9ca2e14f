"""Each format: what text comes out, and where a citation will say it stands."""

import gzip
import json
from datetime import UTC, datetime

import pytest

from tests.loaders import builders
from ttt_memory.errors import InvalidDocumentError, MissingExtraError, UnsupportedFileError
from ttt_memory.loaders import gives_one, load, place


@pytest.fixture
def write(tmp_path):
    def written(name, data):
        path = tmp_path / name
        path.write_bytes(data)
        return path

    return written


@pytest.mark.parametrize(("name", "data"), builders.SAMPLES.values(), ids=builders.SAMPLES.keys())
def test_every_document_says_where_it_comes_from(write, name, data):
    path = write(name, data)
    documents = list(load(path))
    assert documents
    assert not gives_one(path) or len(documents) == 1
    for document in documents:
        assert document.text.strip()
        assert document.metadata["path"] == str(path)
        assert document.metadata["name"] == name
        json.dumps(document.metadata, allow_nan=False)
        assert place(document.metadata, document.text, 0).startswith(name)


def test_text_is_verbatim_and_a_quote_has_a_line(write):
    body = "one\r\ntwo\n\n  three\t\n"
    document = next(load(write("a.md", body.encode())))
    assert document.text == body
    assert document.metadata["format"] == "markdown"
    assert place(document.metadata, body, body.index("three")) == "a.md, line 4"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides(write, encoding):
    assert next(load(write("a.txt", "Grüße 🚢".encode(encoding)))).text == "Grüße 🚢"


def test_code_names_its_language_and_files_without_suffix_are_text(write):
    assert next(load(write("a.rs", b"fn main() {}"))).metadata["language"] == "rust"
    assert next(load(write("Makefile", b"all:\n\ttrue\n"))).text == "all:\n\ttrue\n"


def test_html_gives_what_a_reader_sees(write):
    document = next(load(write("a.html", builders.HTML)))
    assert document.metadata["title"] == "Port rules"
    assert "Rules\n\nNo open fire." in document.text
    assert "berth\t7" in document.text
    assert "a\n  b" in document.text
    assert "x()" not in document.text
    assert "p{}" not in document.text


def test_html_in_another_encoding(write):
    assert "Größe" in next(load(write("a.html", "<meta charset=latin-1><p>Größe".encode("latin-1")))).text
    assert "Größe" in next(load(write("b.html", "<p>Größe".encode("latin-1")))).text


def test_pdf_gives_a_document_a_page(write):
    pages = [f"Page about berth {number}." for number in range(1, 15)]
    pages[4] = " "
    documents = list(load(write("a.pdf", builders.pdf(pages))))
    assert [document.metadata["page"] for document in documents] == [n for n in range(1, 15) if n != 5]
    twelfth = documents[10]
    assert twelfth.text == "Page about berth 12."
    assert place(twelfth.metadata) == "a.pdf, page 12"
    assert twelfth.metadata["pages"] == 14
    assert twelfth.metadata["title"] == "Handbook"


def test_pdf_without_text_says_that_it_is_scanned(write):
    with pytest.raises(InvalidDocumentError, match="OCR"):
        list(load(write("a.pdf", builders.pdf([" ", " "]))))


def test_an_encrypted_pdf_is_named_so(write, tmp_path):
    from pypdf import PdfReader, PdfWriter

    plain = write("plain.pdf", builders.pdf(["secret"]))
    writer = PdfWriter(PdfReader(plain))
    writer.encrypt("word", algorithm="RC4-128")
    writer.write(tmp_path / "locked.pdf")
    with pytest.raises(InvalidDocumentError, match="password"):
        list(load(tmp_path / "locked.pdf"))


def test_docx_paragraphs_tables_and_pages(write):
    data = builders.docx(("Alpha", "Beta", "Gamma"), table=(("berth", "depth"), ("7", "9 m")), page_breaks=True)
    documents = list(load(write("a.docx", data)))
    assert [document.metadata["page"] for document in documents] == [1, 2, 3]
    assert documents[1].text == "Beta"
    assert "berth\tdepth\n7\t9 m" in documents[2].text
    assert documents[0].metadata["title"] == "Rules"
    whole = next(load(write("b.docx", builders.docx(("Alpha", "Beta")))))
    assert whole.text == "Alpha\nBeta"
    assert "page" not in whole.metadata


def test_docx_keeps_content_controls_insertions_and_text_boxes_and_drops_deletions(write):
    body = (
        f"<w:document {builders.W}><w:body>"
        "<w:sdt><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        "<w:p><w:ins><w:r><w:t>inserted</w:t></w:r></w:ins><w:del><w:r><w:delText>deleted</w:delText></w:r></w:del></w:p>"
        "<w:p><w:r><w:pict><w:txbxContent><w:p><w:r><w:t>boxed</w:t></w:r></w:p></w:txbxContent></w:pict></w:r></w:p>"
        "<w:tbl><w:tr><w:tc><w:tcPr><w:gridSpan w:val='2000000000'/></w:tcPr>"
        "<w:p><w:r><w:t>wide</w:t></w:r></w:p></w:tc>"
        "</w:tr></w:tbl></w:body></w:document>"
    )
    data = builders.rezip(builders.docx(), replace={"word/document.xml": body})
    text = next(load(write("a.docx", data))).text
    assert [word for word in ("control", "inserted", "boxed", "wide", "deleted") if word in text] == [
        "control",
        "inserted",
        "boxed",
        "wide",
    ]


def test_pptx_gives_a_document_a_slide(write):
    data = builders.pptx(("Tides", "Winds"), notes="speak slowly", table=(("hour", "height"), ("6", "2 m")))
    documents = list(load(write("a.pptx", data)))
    assert [place(document.metadata) for document in documents] == ["a.pptx, slide 1", "a.pptx, slide 2"]
    assert "Winds" in documents[1].text
    assert "hour\theight\n6\t2 m" in documents[1].text
    assert documents[1].text.endswith("Notes:\nspeak slowly")


@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.csv", ";"), ("a.tsv", "\t"), ("a.csv", "|")])
def test_csv_gives_a_document_a_row(write, name, delimiter):
    rows = [["id", "title", "note"], ["1", "Pump; leaking, badly", "a\nb"], [], ["2", 'He said "no"', ""]]
    documents = list(load(write(name, builders.table(rows, delimiter))))
    assert [document.metadata["row"] for document in documents] == [1, 2]
    assert documents[0].text == "id: 1\ntitle: Pump; leaking, badly\nnote: a\nb"
    assert documents[1].text == 'id: 2\ntitle: He said "no"'
    assert documents[1].metadata["record"]["id"] == "2"
    assert place(documents[1].metadata) == f"{name}, row 2"


def test_csv_without_a_header_numbers_its_columns(write):
    assert [d.text for d in load(write("a.csv", b"1,2\n3,4\n"))] == [
        "column 1: 1\ncolumn 2: 2",
        "column 1: 3\ncolumn 2: 4",
    ]


def test_csv_rows_longer_than_the_header_lose_nothing(write):
    assert next(load(write("a.csv", b"name\nx,y\n"))).text == "name: x\ncolumn 2: y"


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
def test_tickets_can_be_filtered_by_their_fields(write, suffix):
    data = json.dumps(builders.TICKETS).encode() if suffix == "json" else builders.jsonl(builders.TICKETS)
    documents = list(load(write(f"t.{suffix}", data)))
    assert [document.metadata["record"]["status"] for document in documents] == ["open", "closed"]
    assert 'title: Pump leaks\ncreated_at: 2026-01-05T10:00:00Z\ntags: ["pump"]' in documents[0].text
    assert documents[0].observed_at == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert place(documents[1].metadata) == f"t.{suffix}, {'row' if suffix == 'json' else 'line'} 2"


CHATS = {
    "list": ("c.json", json.dumps(builders.CHAT).encode(), "1"),
    "object": ("c.json", json.dumps({"id": "c7", "messages": builders.CHAT}).encode(), "c7"),
    "of lists": ("c.json", json.dumps([{"id": "c8", "messages": builders.CHAT}]).encode(), "c8"),
    "lines": ("c.jsonl", builders.jsonl(builders.CHAT), "1"),
    "a conversation a line": ("c.jsonl", builders.jsonl([{"conversations": builders.CHAT}]), "1"),
}


@pytest.mark.parametrize(("name", "data", "identity"), CHATS.values(), ids=CHATS.keys())
def test_chats_become_appends_to_a_stream(write, name, data, identity):
    path = write(name, data)
    first, second = load(path)
    assert first.stream == second.stream == f"{path.resolve().as_posix()}#{identity}"
    assert (first.sequence, second.sequence) == (0, 1)
    assert (first.origin, second.origin) == ("user", "model")
    assert second.text == "assistant: Under the mat."
    assert first.observed_at == datetime(2026, 1, 5, 10, tzinfo=UTC)
    assert place(second.metadata) == "c.json, message 2" or name == "c.jsonl"


def test_other_json_is_kept_as_it_is(write):
    body = '{"a": [1, 2, {"b": null}]}\n'
    assert [document.text for document in load(write("a.json", body.encode()))] == [body]


def test_json_lines_that_are_a_log_are_blocks_of_lines(write):
    lines = [{"ts": 1767607200 + n, "level": "info", "msg": f"berth {n}"} for n in range(300)]
    data = builders.jsonl(lines) + b'{"broken\n'
    documents = list(load(write("a.jsonl", data)))
    assert len(documents) == 2
    assert "".join(document.text for document in documents).encode() == data
    assert documents[0].observed_at == datetime(2026, 1, 5, 10, tzinfo=UTC)


def test_email_gives_headers_text_and_date(write):
    document = next(load(write("a.eml", builders.email())))
    assert document.text.startswith("From: Ada Löv <ada@example.org>\nTo: ben@example.org\nDate: ")
    assert "Subject: Crane 4 — inspection\n\nThe crane passed.\nNext visit in May." in document.text
    assert "another wording" not in document.text
    assert document.observed_at == datetime(2026, 2, 3, 8, 15, tzinfo=UTC)
    assert document.metadata["attachments"] == ["crane.png"]
    html = next(load(write("b.eml", builders.email(html=True, attach=False)))).text
    assert "The crane passed. Next visit in May." in html
    assert "alert" not in html


def test_logs_are_cut_at_the_same_lines_however_long_they_have_become(write):
    short, grown = builders.log(700), builders.log(900)
    before = [document.text for document in load(write("a.log", short))]
    after = list(load(write("a.log", grown)))
    assert "".join(before).encode() == short
    assert "".join(document.text for document in after).encode() == grown
    assert before[:2] == [document.text for document in after][:2]
    assert [document.metadata["line"] for document in after] == [1, 257, 513, 769]
    quote = after[1].text.index("berth 300 ")
    assert place(after[1].metadata, after[1].text, quote) == "a.log, line 301"
    assert after[0].observed_at == datetime(2026, 2, 3, 10, tzinfo=UTC)
    packed = write("b.log.3.gz", gzip.compress(grown[: len(short)]) + gzip.compress(grown[len(short) :]))
    assert [document.text for document in load(packed)] == [document.text for document in after]


def test_a_log_survives_bad_bytes_and_endless_lines(write):
    data = b"good\n\xff\xfe bad\n" + b"x" * 3_000_000 + b"\nlast\n"
    text = "".join(document.text for document in load(write("a.log", data)))
    assert text == "good\n\\xff\\xfe bad\n" + "x" * 3_000_000 + "\nlast\n"


def test_content_decides_where_the_name_says_nothing(write):
    assert next(load(write("download", builders.pdf(["Found."])))).metadata["format"] == "pdf"
    assert next(load(write("attachment.bin", builders.docx()))).metadata["format"] == "docx"
    with pytest.raises(UnsupportedFileError):
        list(load(write("picture.png", b"\x89PNG\r\n\x1a\n\0\0")))


WRONG = [
    (name, data, suffix)
    for name, data in builders.SAMPLES.values()
    for suffix in (".pdf", ".docx")
    if not name.endswith(suffix)
]


@pytest.mark.parametrize(("name", "data", "suffix"), WRONG, ids=[f"{n} as {s}" for n, _, s in WRONG])
def test_a_wrong_suffix_is_refused(write, name, data, suffix):
    with pytest.raises(InvalidDocumentError):
        list(load(write("wrong" + suffix, data)))


def test_binary_named_as_text_is_refused(write):
    for name, data in (("a.txt", builders.docx()), ("a.py", b"\0\1\2"), ("a.csv", b"\0\0\0\n"), ("a.log", b"\0\0\n")):
        with pytest.raises(InvalidDocumentError):
            list(load(write(name, data)))


LIBRARIES = [("a.pdf", "pypdf"), ("a.docx", "docx"), ("a.pptx", "pptx"), ("a.html", "lxml")]


@pytest.mark.parametrize(("name", "module"), LIBRARIES)
def test_a_missing_library_is_named_with_its_extra(write, monkeypatch, name, module):
    monkeypatch.setitem(__import__("sys").modules, module, None)
    data = next(data for sample, data in builders.SAMPLES.values() if sample.endswith(name[1:]))
    with pytest.raises(MissingExtraError, match=r"ttt-memory\[loaders\]"):
        list(load(write(name, data)))
