"""Logs, plain or gzipped: documents of up to 256 whole lines, cut at the same places each time.

Blocks are documents of their own, known by their text. So a log read again after it grew, or after it was rotated to
another name, adds only the blocks that are new. `follow` appends to a stream instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.limits import LOG_BLOCK_CHARACTERS, LOG_BLOCK_LINES
from ttt_memory.loaders.lines import text_lines
from ttt_memory.loaders.moments import line_moment
from ttt_memory.types import Document


def read(file: SourceFile) -> Iterator[Document]:
    """Blocks of the log; bytes that are not UTF-8 are written `\\xff`, for a log must not be lost to one bad line.

    Raises InvalidDocumentError where it is binary.
    """
    yield from blocks(file, text_lines(file, newline="\n", errors="backslashreplace", split=True))


def blocks(file: SourceFile, lines: Iterable[str]) -> Iterator[Document]:
    """A document for every LOG_BLOCK_LINES lines or LOG_BLOCK_CHARACTERS characters.

    Metadata `line` is the number of its first line, `lines` how many it holds; `observed_at` the time that its
    first line names.
    """
    held: list[str] = []
    characters = start = 0
    for line in lines:
        if "\0" in line and not start:
            raise InvalidDocumentError(
                f"{file.path.name} is not text.", why="it begins with NUL, as binary files do", path=str(file.path)
            )
        held.append(line)
        characters += len(line)
        if len(held) == LOG_BLOCK_LINES or characters >= LOG_BLOCK_CHARACTERS:
            yield from _block(file, held, start)
            start += len(held)
            held, characters = [], 0
    yield from _block(file, held, start)


def _block(file: SourceFile, lines: list[str], start: int) -> Iterator[Document]:
    text = "".join(lines)
    if text.strip():
        yield file.document(text, {"line": start + 1, "lines": len(lines)}, observed_at=line_moment(lines[0]))
