"""Which loader reads which file: by its name, and by its first bytes where the name says nothing."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePath
from typing import IO

from ttt_memory.errors import InvalidDocumentError, UnsupportedFileError
from ttt_memory.loaders import rotation
from ttt_memory.loaders.files import SourceFile, opened
from ttt_memory.loaders.text import LANGUAGES, MARKDOWN, PROSE
from ttt_memory.types import Document

Reader = Callable[[SourceFile], Iterator[Document]]


@dataclass(frozen=True)
class Format:
    """A kind of file.

    Attributes:
        name: kept as metadata `format`.
        suffixes: names that it goes by.
        reader: `module:function` in this package, imported when first needed.
        many: whether one file may give several documents.
        packed: whether it may be gzipped.
    """

    name: str
    suffixes: tuple[str, ...]
    reader: str
    many: bool = False
    packed: bool = True

    def documents(self, file: SourceFile) -> Iterator[Document]:
        """Documents of an open file."""
        module, _, function = self.reader.partition(":")
        reader: Reader = getattr(import_module(f"ttt_memory.loaders.{module}"), function)
        return reader(file)


FORMATS = (
    Format("text", PROSE, "text:read"),
    Format("markdown", MARKDOWN, "text:read"),
    Format("code", tuple(LANGUAGES), "text:read"),
    Format("html", (".html", ".htm", ".xhtml"), "hypertext:read"),
    Format("pdf", (".pdf",), "pdf:read", many=True, packed=False),
    Format("docx", (".docx", ".docm"), "docx:read", many=True, packed=False),
    Format("pptx", (".pptx", ".pptm"), "pptx:read", many=True, packed=False),
    Format("csv", (".csv", ".tsv"), "tables:read", many=True),
    Format("json", (".json",), "jsons:read_json", many=True),
    Format("jsonl", (".jsonl", ".ndjson"), "jsons:read_lines", many=True),
    Format("email", (".eml",), "mail:read"),
    Format("log", (".log", ".out", ".err"), "logs:read", many=True),
)
_BY_SUFFIX = {suffix: format for format in FORMATS for suffix in format.suffixes}
_BY_NAME = {format.name: format for format in FORMATS}


def by_name(path: PurePath) -> tuple[Format | None, str, bool]:
    """Format that a file's name means (None: unknown), its suffix without gzip and rotation, whether it is gzipped."""
    base, _, gzipped = rotation.split(path.name)
    suffix = PurePath(base).suffix.lower()
    found = _BY_NAME["log"] if rotation.is_log(base) else _BY_SUFFIX.get(suffix)
    return (found if found is None or found.packed or not gzipped else None), suffix, gzipped


def by_content(stream: IO[bytes]) -> Format | None:
    """Format that a file's first bytes mean (of a zip, its parts); None where it may be text or anything else."""
    head = stream.read(1024)
    if head.startswith(b"%PDF-"):
        return _BY_NAME["pdf"]
    if head.startswith(b"PK\x03\x04"):
        try:
            parts = set(zipfile.ZipFile(stream).namelist())
        except (zipfile.BadZipFile, ValueError, NotImplementedError):
            return None
        inside = {"docx": "word/document.xml", "pptx": "ppt/presentation.xml"}
        return next((_BY_NAME[name] for name, part in inside.items() if part in parts), None)
    return None


def read(path: Path, *, links: bool = True) -> Iterator[Document]:
    """Documents of one file; whatever goes wrong inside a reader is raised as a typed error.

    Raises:
        InvalidDocumentError: missing, unreadable, damaged, or beyond a limit.
        UnsupportedFileError: no loader for this type.
        MissingExtraError: the type needs a package that is not installed.
    """
    format, suffix, gzipped = by_name(path)
    if (format is None or suffix == "") and not gzipped and path.is_file():
        format = _sniff(path, links) or format
    if format is None:
        raise UnsupportedFileError(
            f"No loader reads {path.name}.",
            why=f"its type {path.suffix!r} is not one of {', '.join(sorted(filter(None, _BY_SUFFIX)))}",
            fix="Convert it to text first and ingest the text.",
            path=str(path),
        )
    with opened(path, format=format.name, suffix=suffix, gzipped=gzipped, links=links) as file:
        yield from _typed(file, format)


def _sniff(path: Path, links: bool) -> Format | None:
    with opened(path, format="", suffix="", gzipped=False, links=links) as file:
        return by_content(file.stream)


def _typed(file: SourceFile, format: Format) -> Iterator[Document]:
    try:
        yield from format.documents(file)
    except (InvalidDocumentError, ImportError):  # MissingExtraError is an ImportError
        raise
    except Exception as error:  # parsers of others raise whatever a damaged file leads them to
        raise InvalidDocumentError(
            f"{file.path.name} cannot be read as {format.name}.",
            why=f"it seems damaged: {type(error).__name__}: {str(error)[:300]}",
            fix="Open it in the program it comes from and save it again.",
            path=str(file.path),
        ) from error
