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
        lines: which line it stands in, [N]: a stream, or a document of its own.
        line_lengths: passages of that line, [N].
        in_stream: whether that is a stream, [N].
        by_model: whether a model wrote it, [N].
        to_model: whether a model did not, but writes in the same stream, [N].
        writers, dates: for each term of a writer's name or of a date the numbers of the documents that have it.
    """

    before: Rows
    after: Rows
    lines: Rows
    line_lengths: Rows
    in_stream: NDArray[np.bool_]
    by_model: NDArray[np.bool_]
    to_model: NDArray[np.bool_]
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
    in_stream, by_model = np.zeros(len(sources), bool), np.zeros(len(sources), bool)
    writers: dict[str, list[int]] = {}
    dates: dict[str, list[int]] = {}
    for number, source in enumerate(sources):
        if source is None:
            continue
        if source.stream is not None:
            line[number] = streams.setdefault(source.stream, number)
            place[number] = source.sequence
            in_stream[number] = True
        by_model[number] = source.by_model
        for found in source.writer:
            writers.setdefault(found, []).append(number)
        for found in source.date:
            dates.setdefault(found, []).append(number)
    count = len(owners)
    lines = line[owners]
    order = np.lexsort((np.arange(count), place[owners], lines))
    joined = np.diff(lines[order]) == 0
    before, after = np.full(count, -1), np.full(count, -1)
    before[order[1:][joined]] = order[:-1][joined]
    after[order[:-1][joined]] = order[1:][joined]
    lengths = np.bincount(lines)[lines]
    answered = np.zeros(len(sources), bool)
    answered[line[by_model & in_stream]] = True
    to_model = (~by_model & in_stream & answered[line])[owners]
    return Surroundings(before, after, lines, lengths, in_stream[owners], by_model[owners], to_model, writers, dates)


BEST_OF_LINE = 3


def of_their_lines(scores: NDArray[np.float64], lines: Rows, lengths: Rows) -> NDArray[np.float64]:
    """Return the mean of the three best scores in each passage's line: a talk about something says so more than once.

    Args:
        scores: of C candidates, 0 to 1.
        lines, lengths: of their lines, [C]. Passages that are no candidates count as 0; where a line is shorter than
            three, all of it is the best.
    """
    _, line, counts = np.unique(lines, return_inverse=True, return_counts=True)
    order = np.lexsort((-scores, line))
    best = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts) < BEST_OF_LINE
    picked = order[best]
    total = np.bincount(line[picked], weights=scores[picked], minlength=len(counts))
    return np.asarray(total[line] / np.minimum(lengths, BEST_OF_LINE))
