"""PPTX: one document a slide, with its tables and the speaker's notes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ttt_memory.errors import MissingExtraError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.office import check_archive
from ttt_memory.types import Document


def read(file: SourceFile) -> Iterator[Document]:
    """A document for each slide with text, `slide` counted from 1; notes follow after a line `Notes:`.

    Raises:
        InvalidDocumentError: damaged, or beyond a limit.
        MissingExtraError: `python-pptx` is not installed.
    """
    check_archive(file)
    try:
        from pptx import Presentation
    except ImportError as error:
        raise MissingExtraError("python-pptx", extra="loaders", needed_for="Reading PPTX") from error
    presentation = Presentation(file.stream)
    slides = list(presentation.slides)
    title = (presentation.core_properties.title or "")[:500].strip() or None
    for number, slide in enumerate(slides, 1):
        parts = list(_texts(slide.shapes))
        if slide.has_notes_slide and (frame := slide.notes_slide.notes_text_frame) is not None and frame.text.strip():
            parts.append(f"Notes:\n{frame.text}")
        text = "\n\n".join(part.replace("\v", "\n") for part in parts if part.strip())
        if text:
            yield file.document(text, {"slide": number, "slides": len(slides), "title": title})


def _texts(shapes: Any) -> Iterator[str]:
    """Text of each shape in the order of the file; groups opened."""
    for shape in shapes:
        if hasattr(shape, "shapes"):
            yield from _texts(shape.shapes)
        elif shape.has_text_frame:
            yield shape.text_frame.text
        elif getattr(shape, "has_table", False):
            rows = ("\t".join(cell.text.replace("\n", " ") for cell in row.cells) for row in shape.table.rows)
            yield "\n".join(rows)
