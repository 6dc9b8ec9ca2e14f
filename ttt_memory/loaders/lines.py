"""Lines of a stream, each of bounded length."""

from __future__ import annotations

import io
from collections.abc import Iterator

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import BOMS, SourceFile
from ttt_memory.loaders.limits import LINE_CHARACTERS, refuse


def text_lines(file: SourceFile, *, newline: str, errors: str = "strict", split: bool = False) -> Iterator[str]:
    """The file's lines with their ends, decoded by the byte order mark or as UTF-8.

    Args:
        file: read from its start, one line at a time.
        newline: as in `open`.
        errors: as in `bytes.decode`.
        split: give a line longer than LINE_CHARACTERS in pieces, do not refuse it.

    Raises:
        InvalidDocumentError: a line longer than LINE_CHARACTERS; with errors="strict", bytes of another encoding.
    """
    stream = file.stream
    head = stream.peek(4)
    mark, encoding = next(((mark, name) for mark, name in BOMS if head.startswith(mark)), (b"", "utf-8"))
    stream.read(len(mark))
    text = io.TextIOWrapper(stream, encoding=encoding, errors=errors, newline=newline)
    number = 0
    try:
        while line := text.readline(LINE_CHARACTERS + (0 if split else 1)):
            number += 1
            if len(line) > LINE_CHARACTERS:
                refuse(file.path.name, f"line {number} is longer than {LINE_CHARACTERS:,} characters")
            yield line
    except UnicodeDecodeError as error:
        raise InvalidDocumentError(
            f"{file.path.name} is not {encoding.upper()} text.",
            why=f"somewhere after line {number} is the byte {error.object[error.start]:#04x}",
            fix="Convert it to UTF-8.",
            path=str(file.path),
        ) from error
