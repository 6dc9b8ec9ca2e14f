"""Opening what was named: regular files only, unpacked where gzipped, decoded, and never more than the limit."""

from __future__ import annotations

import codecs
import gzip
import io
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.limits import check_expansion, refuse
from ttt_memory.types import Document

BOMS = (  # the longer ones first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


@dataclass(frozen=True)
class SourceFile:
    """An open file of a known format.

    Attributes:
        path: as the caller named it.
        format: name of the format, kept in the metadata.
        suffix: lower case, without `.gz` and marks of rotation.
        size: bytes on disk.
        stream: its bytes, unpacked where the file is gzipped.
    """

    path: Path
    format: str
    suffix: str
    size: int
    stream: io.BufferedReader[Any]

    def read(self, limit: int) -> bytes:
        """All bytes. Raises InvalidDocumentError where there are more than `limit`."""
        data = self.stream.read(limit + 1)
        if len(data) > limit:
            refuse(self.path.name, f"it is larger than {limit:,} bytes")
        return data

    def text(self, limit: int) -> str:
        """All text. Raises InvalidDocumentError where it is larger than `limit` bytes, binary or not UTF-8."""
        return decode(self.read(limit), self.path)

    def document(
        self,
        text: str,
        place: Mapping[str, Any],
        *,
        observed_at: datetime | None = None,
        stream: str | None = None,
        sequence: int | None = None,
        origin: Literal["user", "model"] = "user",
    ) -> Document:
        """A document of this file.

        Args:
            text: its text.
            place: metadata beside the path, name and format: where in the file it stands, and what it says of itself;
                what is None is left out.
            observed_at: as in Document, like the rest.

        Raises:
            InvalidDocumentError: the text holds half a surrogate pair, as JSON may.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            where = ", ".join(f"{key} {value}" for key, value in place.items() if isinstance(value, int))
            raise InvalidDocumentError(
                f"{self.path.name} holds text that is not valid Unicode{f' ({where})' if where else ''}.",
                why=f"character {error.start} is a lone surrogate",
                fix="Write the file again as UTF-8.",
                path=str(self.path),
            ) from error
        base = {"path": str(self.path), "name": self.path.name, "format": self.format}
        return Document(
            text=text,
            metadata=base | {key: value for key, value in place.items() if value is not None},
            observed_at=observed_at,
            stream=stream,
            sequence=sequence,
            origin=origin,
        )


@contextmanager
def opened(path: Path, *, format: str, suffix: str, gzipped: bool, links: bool = True) -> Iterator[SourceFile]:
    """Open a regular file for reading; `links` False refuses a symbolic link as the last part of the path.

    Raises:
        InvalidDocumentError: missing, unreadable, not a regular file, or unpacking out of proportion.
    """
    try:
        with _descriptor(path, links) as raw:
            size = os.fstat(raw.fileno()).st_size
            stream: io.BufferedReader[Any] = raw
            if gzipped:
                stream = io.BufferedReader(_Unpacked(raw, path.name, size), 1 << 16)
            yield SourceFile(path, format, suffix, size, stream)
    except OSError as error:  # that of gzip too, which is why this is not around `open` alone
        raise InvalidDocumentError(f"Cannot read {path}.", why=error.strerror or str(error), path=str(path)) from error


def decode(data: bytes, path: Path) -> str:
    """Text of bytes: by the byte order mark where there is one, else UTF-8. Kept as it is otherwise.

    Raises:
        InvalidDocumentError: not text in that encoding, with the place.
    """
    for mark, encoding in BOMS:
        if data.startswith(mark):
            return _decoded(data[len(mark) :], encoding, path)
    if b"\0" in data[:4096]:
        raise InvalidDocumentError(
            f"{path.name} is not text.",
            why=f"byte {data.index(0)} is NUL, as in binary files",
            fix="Convert it to UTF-8 text first.",
            path=str(path),
        )
    return _decoded(data, "utf-8", path)


def _decoded(data: bytes, encoding: str, path: Path) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        found = f": byte {error.start} is {error.object[error.start]:#04x}"
        raise InvalidDocumentError(
            f"{path.name} is not {encoding.upper()} text{found}.",
            fix="Convert it to UTF-8, or decode it yourself and ingest the str.",
            path=str(path),
            position=error.start,
        ) from error


def _descriptor(path: Path, links: bool) -> io.BufferedReader[Any]:
    # Without O_NONBLOCK, opening a named pipe would wait for a writer.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(path, flags | (0 if links else getattr(os, "O_NOFOLLOW", 0)))
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise InvalidDocumentError(f"{path} is not a regular file.", why="it is a device, a pipe or a folder")
    return os.fdopen(number, "rb")


class _Unpacked(io.RawIOBase):
    """Bytes of a gzip file, with an eye on how much they have grown."""

    def __init__(self, raw: io.BufferedReader[Any], name: str, size: int) -> None:
        self._gzip, self._name, self._size, self._read = gzip.GzipFile(fileobj=raw), name, size, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._gzip.read(len(buffer))
        self._read += len(data)
        check_expansion(self._name, self._size, self._read)
        buffer[: len(data)] = data
        return len(data)
