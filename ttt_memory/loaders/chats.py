"""Conversations: every message one append to a stream, so that a longer export adds only what is new."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.moments import moment_of
from ttt_memory.types import Document

ROLES, CONTENTS = ("role", "speaker", "from", "author"), ("content", "text", "value", "message")
LISTS = ("messages", "conversation", "conversations", "turns")
MODEL_ROLES = frozenset(("assistant", "ai", "gpt", "bot", "model"))


def is_message(value: Any) -> bool:
    """Whether a JSON value is a message: someone, and what they said."""
    return isinstance(value, Mapping) and isinstance(_first(value, ROLES), str) and _content(value) is not None


def messages_of(value: Any) -> Sequence[Any] | None:
    """The messages of a conversation: a list of them, or an object that holds one; None where it is none."""
    found = [value[key] for key in LISTS if key in value] if isinstance(value, Mapping) else [value]
    return next((item for item in found if isinstance(item, list) and item and all(map(is_message, item))), None)


def name_of(conversation: Any, number: int) -> str:
    """What tells a conversation from the others of its file: its id, else its number."""
    identity = (
        _first(conversation, ("id", "conversation_id", "thread_id")) if isinstance(conversation, Mapping) else None
    )
    return str(identity)[:200] if isinstance(identity, str | int) else str(number)


def message_document(
    file: SourceFile, message: Mapping[str, Any], *, name: str, number: int, place: Mapping[str, int]
) -> Document:
    """The message `number` (from 0) of the conversation `name`: text `speaker: what they said`.

    The stream is the file's absolute path and that name; the model's own words are marked by `origin`.

    Raises InvalidDocumentError where it is no message.
    """
    role, content = _first(message, ROLES), _content(message)
    if not isinstance(role, str) or content is None:
        raise InvalidDocumentError(
            f"{file.path.name}: message {number + 1} has no role or no content.", path=str(file.path)
        )
    speaker = message.get("name")
    return file.document(
        f"{speaker if isinstance(speaker, str) and speaker else role}: {content}",
        {"role": role, "conversation": name, "message": number + 1, **place},
        observed_at=moment_of(message),
        stream=f"{file.path.resolve().as_posix()}#{name}",
        sequence=number,
        origin="model" if role.lower() in MODEL_ROLES else "user",
    )


def conversation_documents(
    file: SourceFile, messages: Sequence[Any], name: str, place: Mapping[str, int]
) -> Iterator[Document]:
    """A document for each message with content."""
    for number, message in enumerate(messages):
        document = message_document(file, message, name=name, number=number, place=place)
        if (_content(message) or "").strip():
            yield document


def _first(value: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((value[key] for key in keys if key in value), None)


def _content(message: Mapping[str, Any]) -> str | None:
    """Text of a message; parts that are no text (pictures, calls of tools) left out."""
    content = _first(message, CONTENTS)
    if isinstance(content, list):
        parts = (
            part if isinstance(part, str) else part.get("text") if isinstance(part, Mapping) else None
            for part in content
        )
        return "\n".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else None
