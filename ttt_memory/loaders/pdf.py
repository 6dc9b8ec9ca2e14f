"""PDF: one document a page, so that a citation, a filter and `forget` can each name a page."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ttt_memory.errors import InvalidDocumentError, MissingExtraError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.limits import (
    BINARY_BYTES,
    PDF_PAGE_SECONDS,
    PDF_PAGES,
    PDF_STREAM_BYTES,
    Deadline,
    refuse,
)
from ttt_memory.types import Document

if TYPE_CHECKING:
    from pypdf import PageObject


def read(file: SourceFile) -> Iterator[Document]:
    """A document for each page with text, `page` counted from 1.

    Raises:
        InvalidDocumentError: damaged, encrypted, beyond a limit, or without any text.
        MissingExtraError: `pypdf` is not installed.
    """
    try:
        from pypdf import PdfReader
    except ImportError as error:
        raise MissingExtraError("pypdf", extra="loaders", needed_for="Reading PDF") from error
    logger = logging.getLogger("pypdf")  # it warns of every blemish; with no handler Python prints that to stderr
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    if file.size > BINARY_BYTES:
        refuse(file.path.name, f"it is larger than {BINARY_BYTES:,} bytes")
    reader = PdfReader(file.stream)
    if reader.is_encrypted and not reader.decrypt(""):
        raise InvalidDocumentError(
            f"{file.path.name} is encrypted.", fix="Save a copy without a password.", path=str(file.path)
        )
    pages = len(reader.pages)
    if pages > PDF_PAGES:
        refuse(file.path.name, f"it has {pages:,} pages")
    title = _title(reader.metadata)
    found = False
    for number, page in enumerate(reader.pages, 1):
        text = _page_text(page, f"{file.path.name}, page {number}").encode("utf-8", "replace").decode()
        if text.strip():
            found = True
            yield file.document(text, {"page": number, "pages": pages, "title": title})
    if not found:
        raise InvalidDocumentError(
            f"{file.path.name} holds no text.",
            why="its pages are probably pictures of text (scans)",
            fix="Run a text recognition (OCR) over it first.",
            path=str(file.path),
        )


def _page_text(page: PageObject, name: str) -> str:
    deadline = Deadline(name, PDF_PAGE_SECONDS)
    contents = page.get_contents()
    if contents is not None and len(contents.get_data()) > PDF_STREAM_BYTES:
        refuse(name, f"its drawing instructions are larger than {PDF_STREAM_BYTES:,} bytes")

    def on_operand(*_: Any) -> None:
        deadline.check()

    text = page.extract_text(visitor_operand_before=on_operand)
    deadline.check()  # pypdf may have swallowed the error
    return text


def _title(metadata: Any) -> str | None:
    title = metadata.get("/Title") if metadata else None
    return str(title).encode("utf-8", "replace").decode()[:500].strip() or None if title else None
