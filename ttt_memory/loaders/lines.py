"""Lines of a stream, each of bounded length."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterator

from ttt_memory.loaders.files import BOMS, SourceFile
from ttt_memory.loaders.limits import LINE_CHARACTERS, refuse


def text_lines(file: SourceFile, *, newline: str, errors: str = "strict") -> Iterator[str]:
    """The file's lines with their ends, decoded by the byte order mark or as UTF-8.

    Args:
        file: read from its start, one line at a time.
        newline: as in `open`.
        errors: as in `bytes.decode`.

    Raises:
        InvalidDocumentError: a line longer than LINE_CHARACTERS.
        UnicodeDecodeError: not in that encoding, with errors="strict".
    """
    stream = io.BufferedReader(file.stream) if not isinstance(file.stream, io.BufferedReader) else file.stream
    head = stream.peek(4)
    mark, encoding = next(((mark, name) for mark, name in BOMS if head.startswith(mark)), (b"", "utf-8"))
    stream.read(len(mark))
    text = io.TextIOWrapper(stream, encoding=codecs.lookup(encoding).name, errors=errors, newline=newline)
    try:
        number = 0
        while line := text.readline(LINE_CHARACTERS + 1):
            number += 1
            if len(line) > LINE_CHARACTERS:
                refuse(file.path.name, f"line {number} is longer than {LINE_CHARACTERS:,} characters")
            yield line
    finally:
        text.detach()
