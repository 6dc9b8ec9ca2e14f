"""The books that the benchmark fetches: each is read whole, in order, without what its publisher put around it."""

from __future__ import annotations

import gzip
import importlib
import tarfile
from pathlib import Path
from types import ModuleType

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def other(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("other_books")


def test_chapters_are_in_the_order_of_their_numbers(other: ModuleType) -> None:
    files = {"10.txt": b"ten", "2.txt": b"two", "2.json": b"{}", "1.txt": b"one"}
    assert other.chapters(files) == "one\n\ntwo\n\nten"


def test_verses_lose_their_marks(other: ModuleType) -> None:
    assert other.verses({"-1769.json": b'{"A 1": "# In the beginning", "A 2": "And #1"}'}) == "In the beginning\nAnd #1"


def test_what_project_gutenberg_wrote_is_left_out(other: ModuleType) -> None:
    framed = (
        b"Terms\r\n*** START OF THIS PROJECT GUTENBERG EBOOK X ***\r\nCall me\r\n*** END OF THIS PROJECT\r\nMore terms"
    )
    assert other.gutenberg({".txt": framed}) == "Call me"
    assert other.gutenberg({".txt": b"Call me\nEnd"}) == "Call me\nEnd"


def test_pages_follow_the_contents_once_each(other: ModuleType) -> None:
    pytest.importorskip("lxml", reason="HTML is read with lxml: pip install 'ttt-memory[loaders]'")
    contents = (
        b'<a href="b.html#x">B</a><a HREF="a.html">A</a><a href="b.html">B</a><a href="s.css">S</a><a href="no.html">'
    )
    files = {
        "index.html": contents,
        "a.html": b"<p>first",
        "b.html": b"<p>second",
        "s.css": b"a {}",
        "c.html": b"unlinked",
    }
    assert other.pages("index.html")(files) == "second\n\nfirst"
    assert other.pages("index.html", "a")(files) == "first"


def test_sections_are_unpacked_in_order(other: ModuleType) -> None:
    files = {"B.md.gz": gzip.compress(b"b"), "A.md.gz": gzip.compress(b"a"), "A.md": b"short"}
    assert other.sections(files) == "a\n\nb"


def test_a_package_gives_the_files_of_its_book(other: ModuleType, tmp_path: Path) -> None:
    package, folder = tmp_path / "book.tgz", tmp_path / "work"
    folder.mkdir()
    with tarfile.open(package, "w:gz") as archive:
        for name in ("book/1.txt", "book/2.txt", "other/3.txt"):
            (tmp_path / "text").write_text(name)
            archive.add(tmp_path / "text", name)
    book = other.Found("A book", "CC0-1.0", ("cp", str(package), "."), "book/", other.chapters)
    assert set(other.fetched(book, folder)) == {"1.txt", "2.txt"}
    (record,) = other.records([book])
    assert record == {"title": "A book", "license": "CC0-1.0", "source": ".", "text": "book/1.txt\n\nbook/2.txt"}
