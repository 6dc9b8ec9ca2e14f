"""The entry: a path to documents."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ttt_memory.errors import InvalidDocumentError, MissingExtraError, UnsupportedFileError
from ttt_memory.loaders import formats
from ttt_memory.loaders.folders import files
from ttt_memory.types import Document

OnSkip = Callable[[Path, InvalidDocumentError | UnsupportedFileError | MissingExtraError], None]


def load(path: Path, *, on_skip: OnSkip | None = None) -> Iterator[Document]:
    """Documents of a file, or of every file below a folder that a loader reads (`folders.files`).

    Args:
        path: a file or folder.
        on_skip: called for each file of the folder that is left out because it is empty, of an unknown type, damaged or
            beyond a limit, and the folder goes on. Without it, empty files and unknown types are left out quietly, and
            any other error is raised.

    Raises:
        InvalidDocumentError: missing, unreadable, damaged, not UTF-8, or beyond a limit.
        UnsupportedFileError: a file of a type that no loader reads.
        MissingExtraError: the type needs a package that is not installed.
    """
    if not path.is_dir():
        yield from formats.read(path)
        return
    for child in files(path):
        try:
            if not child.stat().st_size:
                raise UnsupportedFileError(f"{child.name} is empty.", path=str(child))
            yield from _child(child)
        except UnsupportedFileError as error:
            if on_skip:
                on_skip(child, error)
        except (InvalidDocumentError, MissingExtraError) as error:
            if not on_skip:
                raise
            on_skip(child, error)
        except OSError as error:
            if not on_skip:
                raise InvalidDocumentError(f"Cannot read {child}.", why=str(error), path=str(child)) from error
            on_skip(child, InvalidDocumentError(f"Cannot read {child}.", why=str(error), path=str(child)))


def _child(path: Path) -> Iterator[Document]:
    """A file met in a folder: without a suffix it may be a program, which is not worth an error."""
    try:
        yield from formats.read(path, links=False)
    except InvalidDocumentError as error:
        if path.suffix:
            raise
        raise UnsupportedFileError(f"{path.name} is not text.", why=error.what, path=str(path)) from error


def gives_one(path: Path) -> bool:
    """Whether a path gives exactly one document: a file of a type that is never cut. Known by its name alone."""
    format = formats.by_name(path)[0]
    return not path.is_dir() and (format is None or not format.many)
