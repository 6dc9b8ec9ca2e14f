"""E-mail (.eml): sender, subject and text of one message; attachments by name only."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from email import message_from_bytes
from email.header import decode_header
from email.message import Message
from email.utils import parsedate_to_datetime

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.hypertext import page_text
from ttt_memory.loaders.limits import TEXT_BYTES, refuse
from ttt_memory.loaders.moments import utc
from ttt_memory.types import Document

HEADER_CHARACTERS = 2_000
PARAMETER_BYTES = 4_096
MULTIPART_LINES = 20_000_000
SHOWN = ("From", "To", "Cc", "Date", "Subject")
ATTACHMENTS = 100
_CONTENT_HEADER = re.compile(rb"(?im)(?:^|\r)content-[a-z-]{1,40}[ \t]*:[^\r\n]*(?:(?:\r\n?|\n)[ \t][^\r\n]*)*")
_MULTIPART = re.compile(rb"multipart/", re.IGNORECASE)


def read(file: SourceFile) -> Iterator[Document]:
    """One document: the headers people read, an empty line, the text. Plain text is taken before HTML.

    Metadata: `from`, `to`, `subject`, `message_id`, `in_reply_to`, `attachments` (names). `observed_at` is its date.

    Raises:
        InvalidDocumentError: no header that makes it a message.
        MissingExtraError: it is HTML only and `lxml` is not installed.
    """
    data = file.read(TEXT_BYTES)
    _check_cost(data, file.path.name)
    message = message_from_bytes(data)
    headers = {name: value for name in SHOWN if (value := _header(message, name))}
    if not headers:
        raise InvalidDocumentError(
            f"{file.path.name} is not an e-mail.", why=f"it has none of {', '.join(SHOWN)}", path=str(file.path)
        )
    parts = [part for part in message.walk() if not part.is_multipart()]
    texts = [part for part in parts if _is_text(part)]
    bodies = [_body(part) for part in texts if part.get_content_type() == "text/plain"]
    if not any(body.strip() for body in bodies):
        bodies = [page_text(_body(part))[1] for part in texts if part.get_content_type() == "text/html"]
    names = [_plain(part.get_filename() or "") for part in parts if not _is_text(part)]
    head = "\n".join(f"{name}: {value}" for name, value in headers.items())
    place = {
        "from": headers.get("From"),
        "to": headers.get("To"),
        "subject": headers.get("Subject"),
        "message_id": _header(message, "Message-ID") or None,
        "in_reply_to": _header(message, "In-Reply-To") or None,
        "attachments": [name for name in names if name][:ATTACHMENTS] or None,
    }
    body = "\n\n".join(body.strip() for body in bodies if body.strip())
    yield file.document(f"{head}\n\n{body}", place, observed_at=_date(message))


def _check_cost(data: bytes, name: str) -> None:
    """Refuse what Python's parser would take minutes for: it goes over a long header again for each of its parameters,
    and over every line once for each multipart that it stands in.
    """
    if any(len(found.group()) > PARAMETER_BYTES for found in _CONTENT_HEADER.finditer(data)):
        refuse(name, f"it has a Content- header longer than {PARAMETER_BYTES:,} bytes")
    nested = len(_MULTIPART.findall(data))
    if nested * data.count(b"\n") > MULTIPART_LINES:
        refuse(name, f"it has {nested:,} multiparts")


def _is_text(part: Message) -> bool:
    attached = (part.get_content_disposition() or "") == "attachment"
    return part.get_content_type() in ("text/plain", "text/html") and not attached


def _body(part: Message) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    for charset in (part.get_content_charset() or "utf-8", "utf-8"):
        try:
            return payload.decode(charset).replace("\r\n", "\n").encode("utf-8", "replace").decode()
        except (LookupError, UnicodeDecodeError):
            continue
    return payload.decode("cp1252", "replace").replace("\r\n", "\n")


def _header(message: Message, name: str) -> str:
    """A header as text on one line, encoded words decoded where their encoding is known."""
    value = message.get(name)
    return "" if value is None else _plain(str(value))


def _plain(value: str) -> str:
    pieces = []
    for piece, charset in decode_header(value[:HEADER_CHARACTERS]):
        if isinstance(piece, str):
            pieces.append(piece)
            continue
        try:
            pieces.append(piece.decode(charset or "utf-8", "replace"))
        except LookupError:
            pieces.append(piece.decode("utf-8", "replace"))
    return re.sub(r"\s+", " ", "".join(pieces)).encode("utf-8", "replace").decode().strip()


def _date(message: Message) -> datetime | None:
    try:
        return utc(parsedate_to_datetime(_header(message, "Date")))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
