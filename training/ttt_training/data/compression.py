"""Lines of files that may be compressed with xz, gzip or Zstandard."""

from __future__ import annotations

import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ttt_memory.errors import InvalidInputError

SUFFIXES = ("", ".xz", ".gz", ".zst")


def lines_of(raw: IO[bytes], path: Path) -> Iterator[bytes]:
    """Lines of `raw`, decompressed by the suffix of `path`. Raises OSError where the compressed bytes are damaged."""
    with _damage_as_os_error(path):
        if path.suffix == ".xz":
            with lzma.open(raw) as lines:
                yield from lines
        elif path.suffix == ".gz":
            with gzip.open(raw) as lines:
                yield from lines
        elif path.suffix == ".zst":
            yield from _zstandard(raw)
        else:
            yield from raw


def _zstandard(raw: IO[bytes]) -> Iterator[bytes]:
    try:
        import zstandard
    except ImportError:
        raise InvalidInputError(
            "Reading .zst files needs the package 'zstandard'.", fix="pip install zstandard"
        ) from None
    reader = zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True)
    try:
        yield from io.BufferedReader(reader)
    except zstandard.ZstdError as error:
        raise OSError(str(error)) from error


@contextmanager
def _damage_as_os_error(path: Path) -> Iterator[None]:
    try:
        yield
    except (EOFError, lzma.LZMAError, zlib.error) as error:
        raise OSError(f"{path.name}: {error}") from error
