"""Where a passage stands: what was said before and after it, by whom, and when.

Passages of one document follow each other, and so do the documents of a stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_memory.ledger.records import LiveMetadata
from ttt_memory.notepad.heading import MONTHS, speaker
from ttt_memory.notepad.terms import term, tokens

MODEL_ROLES = frozenset(("assistant", "ai", "bot", "gpt", "model"))

Rows = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of one document beside its passages.

    Attributes:
        stream, sequence: which stream it continues, and where; None and 0 for a document of its own.
        by_model: whether a model wrote it.
        writer, date: terms of its writer's name and of its day, month and year.
    """

    metadata: Mapping[str, Any]
    observed_at: datetime
    stream: str | None
    sequence: int
    by_model: bool
    writer: frozenset[str]
    date: frozenset[str]

    @classmethod
    def of(cls, document: LiveMetadata) -> Source:
        """What the ledger says of a document."""
        role = str(document.metadata.get("role")).lower()
        day = document.observed_at
        return cls(
            metadata=document.metadata,
            observed_at=day,
            stream=document.stream,
            sequence=document.sequence or 0,
            by_model=document.origin == "model" or role in MODEL_ROLES,
            writer=frozenset(map(term, tokens(speaker(document.metadata)))),
            date=frozenset((str(day.day), term(MONTHS[day.month - 1]), str(day.year))),
        )


@dataclass(frozen=True)
class Surroundings:
    """Of each of N passages.

    Attributes:
        before, after: row of the passage that precedes and follows it, [N]; -1 where none does.
        by_model: whether a model wrote it, [N].
        writers, dates: for each term of a writer's name or of a date the numbers of the documents that have it.
    """

    before: Rows
    after: Rows
    by_model: NDArray[np.bool_]
    writers: Mapping[str, Sequence[int]]
    dates: Mapping[str, Sequence[int]]


def survey(owners: NDArray[np.int64], sources: Sequence[Source | None]) -> Surroundings:
    """Find the surroundings of passages in order of id, that is, in order of writing within each document.

    Args:
        owners: number of the document each passage belongs to, [N].
        sources: documents by number; None where removed.
    """
    streams: dict[str, int] = {}
    line, place = np.arange(len(sources)), np.zeros(len(sources), np.int64)
    by_model = np.zeros(len(sources), bool)
    writers: dict[str, list[int]] = {}
    dates: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        if source is None:
            continue
        if source.stream is not None:
            line[number] = streams.setdefault(source.stream, number)
            place[number] = source.sequence
        by_model[number] = source.by_model
        for found in source.writer:
            writers.setdefault(found, []).append(number)
        for found in source.date:
            dates.setdefault(found, []).append(number)
    count = len(owners)
    order = np.lexsort((np.arange(count), place[owners], line[owners]))
    joined = np.diff(line[owners][order]) == 0
    before, after = np.full(count, -1), np.full(count, -1)
    before[order[1:][joined]] = order[:-1][joined]
    after[order[:-1][joined]] = order[1:][joined]
    return Surroundings(before, after, by_model[owners], writers, dates)
