"""Plain text, Markdown, reStructuredText, source code and logs: read as UTF-8, kept verbatim."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ttt_memory.errors import InvalidDocumentError, UnsupportedFileError
from ttt_memory.types import Document

SUFFIXES = frozenset(
    [".txt", ".md", ".markdown", ".rst", ".log", ".py", ".toml", ".ini", ".cfg", ".yaml", ".yml", ".csv", ".json"]
    + [".jsonl", ".tex", ".c", ".h", ".cpp", ".rs", ".go", ".java", ".js", ".ts", ".sh", ".sql", ""]
)


def load(path: Path) -> Iterator[Document]:
    """One document a file; of a folder, its readable text files in sorted order, hidden ones left out.

    Raises:
        InvalidDocumentError: the file is missing, unreadable or not UTF-8.
        UnsupportedFileError: another type of file.
    """
    if path.is_dir():
        for child in sorted(path.rglob("*")):
            hidden = any(part.startswith(".") for part in child.relative_to(path).parts)
            if child.is_file() and not hidden and child.suffix.lower() in SUFFIXES - {""} and child.stat().st_size:
                yield _read(child)
    elif path.suffix.lower() not in SUFFIXES:
        raise UnsupportedFileError(
            f"No loader reads {path.name}.",
            why=f"its type {path.suffix!r} is not plain text",
            fix="Convert it to text first and ingest the text.",
            path=str(path),
        )
    else:
        yield _read(path)


def _read(path: Path) -> Document:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise InvalidDocumentError(f"Cannot read {path}.", why=error.strerror or str(error), path=str(path)) from error
    except UnicodeDecodeError as error:
        raise InvalidDocumentError(
            f"{path.name} is not UTF-8 text: byte {error.start} is {error.object[error.start]:#04x}.",
            fix="Convert it to UTF-8, or decode it yourself and ingest the str.",
            path=str(path),
            position=error.start,
        ) from error
    return Document(text=text, metadata={"path": str(path), "name": path.name})
