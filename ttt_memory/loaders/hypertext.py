"""HTML: the text a reader sees, a line for each block; title as metadata."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttt_memory.errors import MissingExtraError
from ttt_memory.loaders.files import BOMS, SourceFile, decode
from ttt_memory.loaders.limits import TEXT_BYTES
from ttt_memory.types import Document

if TYPE_CHECKING:
    from selectolax.lexbor import LexborNode

UNSEEN = frozenset("script style template noscript head iframe object svg canvas math select".split())
BLOCKS = frozenset(
    "address article aside blockquote body br caption center dd details div dl dt fieldset figcaption figure footer "
    "form h1 h2 h3 h4 h5 h6 header hr li main nav ol option p pre section summary table tbody tfoot thead tr ul".split()
)
CELLS = frozenset(("td", "th"))
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

    Raises MissingExtraError where `selectolax` is not installed.
    """
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError as error:
        raise MissingExtraError("selectolax", extra="loaders", needed_for="Reading HTML") from error
    tree = LexborHTMLParser(html)
    head = tree.css_first("title")
    title = " ".join(head.text().split()) if head else ""
    return title, _visible(tree.body) if tree.body else ""


def _visible(body: LexborNode) -> str:
    """Text in document order, by a stack: pages may nest deeper than Python recurses."""
    parts: list[str] = []
    stack: list[tuple[LexborNode | str, bool]] = [(body, False)]
    while stack:
        node, kept = stack.pop()
        if isinstance(node, str):
            parts.append(node)
            continue
        tag = node.tag
        if tag == "-text":
            text = node.text_content or ""
            if not kept:
                text = re.sub(r"\s+", " ", text)
                text = text.lstrip() if not parts or parts[-1][-1].isspace() else text
            if text:
                parts.append(text)
        if tag is None or tag in UNSEEN or tag.startswith("-"):
            continue
        end = "\n" if tag in BLOCKS else "\t" if tag in CELLS else ""
        if end == "\n":
            parts.append("\n")
        if end:
            stack.append((end, False))
        children = []
        child = node.first_child
        while child is not None:
            children.append((child, kept or tag == "pre"))
            child = child.next
        stack.extend(reversed(children))
    lines = (line.rstrip() for line in "".join(parts).split("\n"))
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()
