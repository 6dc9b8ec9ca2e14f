"""JSON and JSON Lines: conversations, records (tickets, rows), logs; any other JSON is kept as its text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from ttt_memory.errors import InvalidDocumentError
from ttt_memory.loaders.chats import conversation_documents, is_message, message_document, messages_of, name_of
from ttt_memory.loaders.files import SourceFile
from ttt_memory.loaders.limits import TEXT_BYTES
from ttt_memory.loaders.lines import text_lines
from ttt_memory.loaders.logs import blocks
from ttt_memory.loaders.moments import moment_of
from ttt_memory.loaders.records import record_document
from ttt_memory.types import Document

LEVELS = frozenset(("level", "levelname", "lvl", "severity", "log.level"))


class Line(NamedTuple):
    """A line of JSON Lines: its number from 1, its text, its value."""

    number: int
    text: str
    value: Any


def read_json(file: SourceFile) -> Iterator[Document]:
    """A conversation, a list of conversations, or a list of records; else one document: the file's text.

    Raises InvalidDocumentError where it is not JSON.
    """
    text = file.text(TEXT_BYTES)
    value = _parse(text, file, None)
    if (messages := messages_of(value)) is not None:
        yield from conversation_documents(file, messages, name_of(value, 1), {})
    elif isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value):
        for number, item in enumerate(value, 1):
            yield from _item(file, item, number, {"row": number})
    else:
        yield file.document(text, {})


def read_lines(file: SourceFile) -> Iterator[Document]:
    """What the first line is, the file is: messages, a log, or records and conversations a line each.

    Raises InvalidDocumentError where a line is not JSON.
    """
    texts = text_lines(file, newline="\n")
    before: list[str] = []
    for text in texts:
        before.append(text)
        if text.strip():
            break
    else:
        raise InvalidDocumentError(f"{file.path.name} is empty.", path=str(file.path))
    first = _parse(before[-1], file, len(before))
    if _is_log(first):  # kept as it is: a log may have a broken line
        yield from blocks(file, chain(before, texts))
        return
    every = _values(file, chain(before, texts))
    if is_message(first):
        for number, line in enumerate(every):
            if not isinstance(line.value, Mapping):
                raise InvalidDocumentError(f"{file.path.name}: line {line.number} is no message.", path=str(file.path))
            yield message_document(file, line.value, name="1", number=number, place={"line": line.number})
    else:
        for line in every:
            if isinstance(line.value, Mapping):
                yield from _item(file, line.value, line.number, {"line": line.number})
            else:
                yield file.document(line.text.strip(), {"line": line.number})


def _item(file: SourceFile, item: Mapping[str, Any], number: int, place: Mapping[str, int]) -> Iterator[Document]:
    if (messages := messages_of(item)) is not None:
        yield from conversation_documents(file, messages, name_of(item, number), place)
    elif document := record_document(file, item, place):
        yield document


def _values(file: SourceFile, texts: Iterable[str]) -> Iterator[Line]:
    for number, text in enumerate(texts, 1):
        if text.strip():
            yield Line(number, text, _parse(text, file, number))


def _is_log(value: Any) -> bool:
    return isinstance(value, Mapping) and moment_of(value) is not None and not LEVELS.isdisjoint(value)


def _parse(text: str, file: SourceFile, line: int | None) -> Any:
    where = file.path.name if line is None else f"{file.path.name}, line {line},"
    try:
        return json.loads(text)
    except RecursionError as error:
        raise InvalidDocumentError(f"{where} nests too deeply.", path=str(file.path), line=line) from error
    except ValueError as error:
        raise InvalidDocumentError(f"{where} is not JSON.", why=str(error), path=str(file.path), line=line) from error
