"""Following a log as it grows: new whole lines become appends to a stream, through rotation and truncation."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Callable, Generator, Iterator
from pathlib import Path

from ttt_memory.loaders.files import SourceFile, opened
from ttt_memory.loaders.limits import LOG_BLOCK_CHARACTERS, LOG_BLOCK_LINES, MIB
from ttt_memory.loaders.moments import line_moment
from ttt_memory.types import Document

HEAD_BYTES = 1024
LINE_BYTES = MIB  # a longer line is given in pieces
POLL_SECONDS = 0.25


def follow(
    path: Path, *, stop: threading.Event, resume: Callable[[str], int] | None = None, poll: float = POLL_SECONDS
) -> Iterator[Document]:
    """New whole lines of a log, from its start on and then as they are written, until `stop` is set.

    Each document is an append to the stream `<absolute path>#<checksum of the file's first line>`, so that a file put
    in its place by rotation is a stream of its own. Its `sequence` is the byte where it begins, metadata `end` the byte
    where it ends, `line` and `lines` the number of its first line and of its lines, `observed_at` the time that its
    first line names. Bytes that are not UTF-8 are written `\\xff`.

    Args:
        path: the live log; it may not exist yet, and may vanish and come back.
        stop: ends the generator within `poll` seconds, after the lines that are whole by then.
        resume: gives the byte to go on from in a stream: the largest `end` that the memory holds for it, 0 if none.
            With it a follower that was stopped or killed repeats and loses nothing. None: from the start.
        poll: seconds between looks at the file.

    Raises:
        InvalidDocumentError: it is not a regular file, or cannot be read.
    """
    seen: set[str] = set()
    while True:
        replaced = False
        if path.exists():
            with opened(path, format="log", suffix=".log", gzipped=False) as file:
                replaced = yield from _Generation(file, resume or _from_the_start, seen).documents(stop, poll)
        if not replaced and stop.wait(poll):
            return


class _Generation:
    """One file that is the log, until another one is in its place or its content is begun anew."""

    def __init__(self, file: SourceFile, resume: Callable[[str], int], seen: set[str]) -> None:
        self.file, self.resume, self.seen = file, resume, seen
        self.stream, self.head, self.at, self.line = "", b"", 0, 1

    def documents(self, stop: threading.Event, poll: float) -> Generator[Document, None, bool]:
        """Appends until it is over; whether another file is to be looked for."""
        while True:
            # Both are asked before reading, so that what was written until then is read.
            stopping, replaced = stop.is_set(), self._replaced()
            if self._begun_anew():
                return True
            yield from self._appends(last=False)
            if replaced:
                # Writers notice a rotation late: this file may grow until the next one is there, and a little longer.
                while not self.file.path.exists() and not stop.wait(poll):
                    yield from self._appends(last=False)
                stop.wait(poll)
                yield from self._appends(last=True)
                return True
            if stopping:
                return False
            stop.wait(poll)

    def _replaced(self) -> bool:
        mine = os.fstat(self.file.stream.fileno())
        try:
            named = os.stat(self.file.path)
        except FileNotFoundError:
            return True
        return (named.st_dev, named.st_ino) != (mine.st_dev, mine.st_ino)

    def _begun_anew(self) -> bool:
        if not self.stream:
            return False
        self.file.stream.seek(0)
        return self._size() < self.at or self.file.stream.read(len(self.head)) != self.head

    def _size(self) -> int:
        return os.fstat(self.file.stream.fileno()).st_size

    def _begin(self, last: bool) -> bool:
        """Name the stream once the first line is whole, and go to where it was left."""
        self.file.stream.seek(0)
        head = self.file.stream.read(HEAD_BYTES)
        first, line_end, _ = head.partition(b"\n")
        if not head or not (line_end or len(head) == HEAD_BYTES or last):
            return False
        self.head = first + line_end
        base = f"{self.file.path.resolve().as_posix()}#{zlib.crc32(self.head):08x}"
        number, name = 1, base
        # A file begun anew may open with the same line: it must not continue the stream of the former content.
        while name in self.seen or self.resume(name) > self._size() or self.resume(f"{base}~{number + 1}"):
            number += 1
            name = f"{base}~{number}"
        self.seen.add(name)
        self.stream, self.at = name, self.resume(name)
        self.line = 1 + self._line_ends(self.at)
        return True

    def _line_ends(self, until: int) -> int:
        self.file.stream.seek(0)
        count = 0
        while until > 0 and (chunk := self.file.stream.read(min(until, MIB))):
            count += chunk.count(b"\n")
            until -= len(chunk)
        return count

    def _appends(self, *, last: bool) -> Iterator[Document]:
        """What has been written since; an unfinished line only if it is the last chance to read it."""
        if not self.stream and not self._begin(last):
            return
        while lines := self._lines(last):
            if document := self._document(b"".join(lines)):
                yield document

    def _lines(self, last: bool) -> list[bytes]:
        """The next lines, at most one document of them."""
        self.file.stream.seek(self.at)
        lines: list[bytes] = []
        size = 0
        while len(lines) < LOG_BLOCK_LINES and size < LOG_BLOCK_CHARACTERS:
            line = self.file.stream.readline(LINE_BYTES)
            if not line or not (line.endswith(b"\n") or len(line) == LINE_BYTES or last):
                break
            piece = line if line.endswith(b"\n") or len(line) < LINE_BYTES else _whole_characters(line)
            lines.append(piece)
            size += len(piece)
            if len(piece) < len(line):
                break
        return lines

    def _document(self, data: bytes) -> Document | None:
        """The append that these bytes are; None where they are blank. Moves on behind them either way."""
        text = data.decode("utf-8", "backslashreplace")
        start, self.at = self.at, self.at + len(data)
        line, self.line = self.line, self.line + data.count(b"\n")
        if not text.strip():
            return None
        return self.file.document(
            text,
            {"line": line, "lines": max(1, data.count(b"\n")), "end": self.at},
            observed_at=line_moment(text.split("\n", 1)[0]),
            stream=self.stream,
            sequence=start,
        )


def _from_the_start(_: str) -> int:
    return 0


def _whole_characters(data: bytes) -> bytes:
    """Without a UTF-8 character that the end cuts in two."""
    for back in range(1, min(4, len(data))):
        if data[-back] >= 0xC0:
            needed = 2 if data[-back] < 0xE0 else 3 if data[-back] < 0xF0 else 4
            return data[:-back] if needed > back else data
        if data[-back] < 0x80:
            break
    return data
