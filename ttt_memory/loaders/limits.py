"""How much one file may cost. A file beyond a limit is refused whole, with an InvalidDocumentError that names it."""

from __future__ import annotations

import time
from typing import NoReturn

from ttt_memory.errors import InvalidDocumentError

MIB = 1 << 20
TEXT_BYTES = 32 * MIB  # of a file that is read whole: text, source code, HTML, JSON, e-mail
BINARY_BYTES = 128 * MIB  # of a PDF or Office file on disk
ARCHIVE_BYTES = 256 * MIB  # of an Office file, unpacked
XML_BYTES = 64 * MIB  # of its XML parts together, unpacked: as a tree they take some ten times that
ARCHIVE_ENTRIES = 10_000
RATIO = 200  # unpacked bytes for each packed one; text packs 3 to 30 fold, a bomb 1,000 fold
FREE_BYTES = 16 * MIB  # a ratio is no matter below this size
PDF_PAGES = 20_000
PDF_STREAM_BYTES = 16 * MIB  # drawing instructions of one page
PDF_PAGE_SECONDS = 20.0
LINE_CHARACTERS = MIB  # of one line of CSV or JSON Lines
LOG_BLOCK_LINES, LOG_BLOCK_CHARACTERS = 256, 16_384


def refuse(name: str, why: str, fix: str = "Split the file, or convert it to text first.") -> NoReturn:
    """Raise the InvalidDocumentError of a file beyond a limit."""
    raise InvalidDocumentError(f"{name} is beyond what a loader reads.", why=why, fix=fix, file=name)


def check_expansion(name: str, packed: int, unpacked: int) -> None:
    """Refuse what grows out of proportion.

    Args:
        name: the file, for the message.
        packed: its bytes on disk.
        unpacked: its bytes so far, or as declared.
    """
    if unpacked > FREE_BYTES and unpacked > RATIO * max(packed, 1):
        refuse(name, f"{packed:,} bytes unpack to more than {RATIO} times as many: it looks like a compression bomb")


class Deadline:
    """Wall time for one piece of work: `check()` raises once it is over."""

    def __init__(self, name: str, seconds: float) -> None:
        self.name, self.seconds, self.end = name, seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Raise InvalidDocumentError if the time is over."""
        if time.monotonic() > self.end:
            refuse(self.name, f"it took longer than {self.seconds:.0f} s to read")
