"""HTML: the text a reader sees, a line for each block; title as metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ttt_memory.errors import MissingExtraError
from ttt_memory.loaders.files import BOMS, SourceFile, decode
from ttt_memory.loaders.limits import TEXT_BYTES
from ttt_memory.types import Document

UNSEEN = frozenset("script style template noscript head iframe object svg canvas math select".split())
BLOCKS = frozenset(
    "address article aside blockquote body br caption center dd details div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hr li main nav ol option p pre section summary table tbody tfoot thead tr ul".split()
)
CELLS = frozenset(("td", "th"))
CHUNK = 1 << 16
_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s{0,9}=\s{0,9}[\"']?([A-Za-z0-9_-]{1,40})", re.IGNORECASE)


def read(file: SourceFile) -> Iterator[Document]:
    """One document: the visible text of the page."""
    title, text = page_text(markup(file.read(TEXT_BYTES), file))
    yield file.document(text, {"title": title or None})


def markup(data: bytes, file: SourceFile) -> str:
    """Decode as a browser does: byte order mark, `<meta charset>`, UTF-8; where none fits, Windows-1252."""
    if any(data.startswith(mark) for mark, _ in BOMS):
        return decode(data, file.path)
    declared = _CHARSET.search(data[:2048])
    for encoding in (declared.group(1).decode() if declared else "utf-8", "utf-8"):
        try:
            return data.decode(encoding)
        except (UnicodeDecodeError, LookupError):
            continue
    return data.decode("cp1252", errors="replace")


def page_text(html: str) -> tuple[str, str]:
    """Title and visible text of a page.

    libxml2 reports tags as they come and no tree is built: that of a hostile page grows with
    the square of the page.

    Raises MissingExtraError where `lxml` is not installed.
    """
    try:
        from lxml import etree
    except ImportError as error:
        raise MissingExtraError("lxml", extra="loaders", needed_for="Reading HTML") from error
    page = _Page()
    parser = etree.HTMLParser(target=page, huge_tree=True, encoding="utf-8")
    data = html.encode("utf-8", "replace")
    for start in range(0, len(data), CHUNK):
        parser.feed(data[start : start + CHUNK])
    if data:
        parser.close()
    lines = (line.rstrip() for line in "".join(page.parts).split("\n"))
    return " ".join("".join(page.title).split()), re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


class _Page:
    """Gathers text between the tags that the parser reports, in pairs of start and end."""

    def __init__(self) -> None:
        self.title: list[str] = []
        self.parts: list[str] = []
        self.unseen = self.verbatim = 0
        self.in_title = False

    def start(self, tag: str, _: object) -> None:
        self.unseen += tag in UNSEEN
        self.verbatim += tag == "pre"
        self.in_title = tag == "title" and not self.title
        if tag in BLOCKS:
            self._add("\n")

    def end(self, tag: str) -> None:
        self.in_title = False
        if tag in BLOCKS or tag in CELLS:
            self._add("\n" if tag in BLOCKS else "\t")
        self.unseen -= tag in UNSEEN
        self.verbatim -= tag == "pre"

    def data(self, text: str) -> None:
        if self.in_title:
            self.title.append(text)
        elif self.verbatim:
            self._add(text)
        else:
            text = re.sub(r"\s+", " ", text)
            self._add(text.lstrip() if not self.parts or self.parts[-1][-1].isspace() else text)

    def close(self) -> None:
        pass

    def _add(self, text: str) -> None:
        if text and not self.unseen:
            self.parts.append(text)
