"""What DOCX and PPTX share: a zip of XML parts, looked at before any library unpacks it."""

from __future__ import annotations

import zipfile
from typing import IO
from xml.parsers import expat

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.limits import (
    ARCHIVE_BYTES,
    ARCHIVE_ENTRIES,
    BINARY_BYTES,
    XML_BYTES,
    check_expansion,
    refuse,
)


def check_archive(file: SourceFile) -> None:
    """Raise InvalidDocumentError for a bomb, a document type declaration (XXE, entity bombs), or no archive at all.

    The sizes that a zip declares bound what Python's zipfile unpacks, so that lying about them gains nothing.
    """
    name = file.path.name
    if file.size > BINARY_BYTES:
        refuse(name, f"it is larger than {BINARY_BYTES:,} bytes")
    try:
        archive = zipfile.ZipFile(file.stream)
    except zipfile.BadZipFile as error:
        raise InvalidDocumentError(
            f"{name} is not a {file.suffix} file.",
            why=f"it is not a whole zip archive: {error}",
            fix="Save it again; older .doc and .ppt files must be converted.",
            path=str(file.path),
        ) from error
    with archive:
        entries = archive.infolist()
        if len(entries) > ARCHIVE_ENTRIES:
            refuse(name, f"it has {len(entries):,} parts")
        total = xml = 0
        for entry in entries:
            check_expansion(f"{name}/{entry.filename}", entry.compress_size, entry.file_size)
            total += entry.file_size
            with archive.open(entry) as part:
                xml += entry.file_size if _is_xml(part, f"{name}/{entry.filename}") else 0
        if total > ARCHIVE_BYTES or xml > XML_BYTES:
            refuse(name, f"it unpacks to {total:,} bytes, {xml:,} of them XML")
        check_expansion(name, file.size, total)
    file.stream.seek(0)


class _Root(Exception):  # noqa: N818 - the way to stop expat, not an error
    """The root element was reached."""


def _is_xml(part: IO[bytes], name: str) -> bool:
    """Whether a part begins as XML; raises where it declares a document type, which Office never writes."""

    def on_root(*_: object) -> None:
        raise _Root

    def on_doctype(*_: object) -> None:
        refuse(name, "it declares a document type, as attacks with XML entities do and Office files never")

    parser = expat.ParserCreate()
    parser.StartElementHandler = on_root
    parser.StartDoctypeDeclHandler = on_doctype
    try:
        while chunk := part.read(1 << 14):
            parser.Parse(chunk, False)
    except _Root:
        return True
    except expat.ExpatError:
        pass  # a picture; or damaged XML, which its own library will refuse
    return name.endswith((".xml", ".rels"))
