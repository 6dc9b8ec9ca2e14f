"""DOCX: a document a page where Word has noted its page breaks, else one of the whole; foot- and endnotes apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ttt_memory.errors import MissingExtraError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.office import check_archive
from ttt_memory.types import Document

NOTES = ("footnotes", "endnotes")
_BREAK = "\f"
_HIDDEN = frozenset(("sectPr", "pPr", "rPr", "tblPr", "trPr", "tcPr", "Fallback", "instrText", "delText", "del"))


def read(file: SourceFile) -> Iterator[Document]:
    """The text in reading order; tables a line a row, cells apart by tabs; deleted revisions left out.

    The tree is walked here, not by python-docx's paragraphs: those leave out content controls, text boxes and
    insertions under revision, and repeat merged cells as often as the file says.

    Raises:
        InvalidDocumentError: damaged, or beyond a limit.
        MissingExtraError: `python-docx` is not installed.
    """
    check_archive(file)
    try:
        import docx
        from docx.oxml.parser import parse_xml
    except ImportError as error:
        raise MissingExtraError("python-docx", extra="loaders", needed_for="Reading DOCX") from error
    document = docx.Document(file.stream)
    title = (document.core_properties.title or "")[:500].strip() or None
    pages = _body(document.element.body)
    for number, text in enumerate(pages, 1):
        if text.strip():
            place = {"page": number, "pages": len(pages)} if len(pages) > 1 else {}
            yield file.document(text, {"title": title, **place})
    for relation in document.part.rels.values():
        kind = relation.reltype.rpartition("/")[2]
        if kind in NOTES and not relation.is_external:
            text = "\n".join(_lines(parse_xml(relation.target_part.blob), "lastRenderedPageBreak")).strip()
            if text:
                yield file.document(text.replace(_BREAK, ""), {"title": title, "part": kind})


def _body(body: Any) -> list[str]:
    """Text of each page. Breaks that Word has rendered count; where there are none, those the author set."""
    rendered = any(True for _ in body.iter("{*}lastRenderedPageBreak"))
    text = "\n".join(_lines(body, "lastRenderedPageBreak" if rendered else "br"))
    return [page.strip("\n") for page in text.split(_BREAK)]


def _lines(element: Any, page_break: str) -> Iterator[str]:
    """Lines of block content: paragraphs, tables, and what wraps them."""
    for child in element:
        tag = _tag(child)
        if tag == "p":
            yield "".join(_inline(child, page_break))
        elif tag == "tr":
            cells = ["\n".join(_lines(cell, page_break)) for cell in child if _tag(cell) in ("tc", "sdt")]
            row = "\t".join(" ".join(cell.replace(_BREAK, "").split("\n")) for cell in cells)
            yield (_BREAK if any(_BREAK in cell for cell in cells) else "") + row
        elif tag not in _HIDDEN:
            yield from _lines(child, page_break)


def _inline(element: Any, page_break: str) -> Iterator[str]:
    """Pieces of a paragraph's text."""
    for child in element:
        tag = _tag(child)
        if tag == "t":
            yield (child.text or "").replace(_BREAK, " ")
        elif tag in ("tab", "ptab"):
            yield "\t"
        elif tag == "noBreakHyphen":
            yield "-"
        elif tag == "lastRenderedPageBreak":
            yield _BREAK if page_break == tag else ""
        elif tag in ("br", "cr"):
            of_page = any(_local(key) == "type" and value == "page" for key, value in child.attrib.items())
            yield "\n" if not of_page else _BREAK if page_break == tag else ""
        elif tag == "txbxContent":
            yield "\n" + "\n".join(_lines(child, page_break)).replace(_BREAK, "") + "\n"
        elif tag not in _HIDDEN:
            yield from _inline(child, page_break)


def _tag(element: Any) -> str:
    return _local(element.tag) if isinstance(element.tag, str) else ""  # comments have a function for a tag


def _local(name: str) -> str:
    return name.rpartition("}")[2]
