"""How often quoted sentences hold the answer, and confidence fitted to it, over several sets at once."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from answers_data import Article, Asked, holds
from answers_fit import auroc, calibration, out_of_fold, reliability
from answers_memory import Vectors, memory_of

from ttt_memory import CompressedMemory
from ttt_memory.answerers import calibration as present
from ttt_memory.types import Answer

T = TypeVar("T")
MAIN = "squad2"
"""The set whose share of right quotes is the target's."""
TARGET = 0.80
MIXTURE = {"answerable": 0.5, "unanswerable": 0.25, "elsewhere": 0.25}
"""Questions as a memory may meet them: half of them answered by what it read, the others made to mislead (SQuAD 2's
own, about the same paragraphs; other sets have none), or about something it never read."""


class Row(NamedTuple):
    """One question asked: of which set and kind, and what was answered."""

    set: str
    kind: str
    asked: Asked
    answer: Answer


def quotes(
    sets: Mapping[str, Sequence[Article]], place: Path, vectors: Vectors, sample: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Answerable questions, misleading ones and foreign ones, quoted: how often the quote holds the answer, what
    refusing costs, and the fit of confidence in which every set weighs the same."""
    rows = [row for name, read in sets.items() for row in _ask_all(name, read, place, vectors, sample)]
    main = [row for row in rows if row.set == MAIN]
    found = {
        "questions": _counts(main),
        "quote_holds_the_answer": _share([_verbatim(r) for r in main if r.kind == "answerable"]),
        "target": TARGET,
        "words_quoted": round(float(np.mean([len(r.answer.text.split()) for r in main if r.kind == "answerable"])), 1),
        "refused": {kind: _share([not r.answer.grounded for r in main if r.kind == kind]) for kind in _counts(main)},
        "refusing_at": _refusing(main),
    }
    rows = [row for row in rows if row.answer.prompt and row.answer.prompt.signals]
    fitted, by_set = _fit(rows)
    for name, measured in by_set.items():
        of_set = [row for row in rows if row.set == name]
        by_set[name] = {
            "questions": _counts(of_set),
            "quote_holds_the_answer": _share([_right(r) for r in of_set if r.kind == "answerable"]),
            **measured,
        }
    found["sets"] = by_set
    return found, fitted


def _ask_all(name: str, read: Sequence[Article], place: Path, vectors: Vectors, sample: int) -> Iterator[Row]:
    draw = random.Random(0)
    every = [asked for article in read for asked in article.asked]
    chosen = [("answerable", asked) for asked in every if asked.golds]
    others = [asked for asked in every if not asked.golds]
    chosen += [("unanswerable", asked) for asked in draw.sample(others, min(sample, len(others)))]
    print(name, flush=True)
    with memory_of(read, place / f"{name}.db", vectors) as memory:
        for kind, asked in shown(chosen):
            yield Row(name, kind, asked, ask(memory, asked.text))
    halves = (read[0::2], read[1::2])
    for number, half in enumerate(halves):
        with memory_of(half, place / f"{name}-half{number}.db", vectors) as memory:
            foreign = [asked for article in halves[1 - number] for asked in article.asked if asked.golds]
            for asked in shown(draw.sample(foreign, min(sample // 2, len(foreign)))):
                yield Row(name, "elsewhere", asked, ask(memory, asked.text))
    vectors.keep()


def _fit(rows: Sequence[Row]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fit over all sets, and how well it does on each, by fits that did not see the question's article."""
    weights = np.array(_weights(rows))
    right = [row.kind == "answerable" and _right(row) for row in rows]
    signals = [row.answer.prompt.signals for row in rows if row.answer.prompt]
    names = list(present.QUOTE.weights)
    articles = list(dict.fromkeys((row.set, row.asked.article) for row in rows))
    groups = [articles.index((row.set, row.asked.article)) for row in rows]
    before = [_support(s) for s in signals]
    fitted = calibration(signals, names, right, weights.tolist(), groups, before)
    features, truth = np.array([[s[name] for name in names] for s in signals]), np.array(right, float)
    said = out_of_fold(features, truth, weights, groups)
    by_set = {}
    for name in dict.fromkeys(row.set for row in rows):
        inside = np.array([row.set == name for row in rows])
        of_set = (said[inside], truth[inside], weights[inside])
        by_set[name] = {"ece": reliability(*of_set)["ece"], "auroc": round(auroc(*of_set), 4)}
    return fitted, by_set


def _weights(rows: Sequence[Row]) -> list[float]:
    """Every set weighs 1, and within a set its kinds as in MIXTURE."""
    count: dict[tuple[str, str], int] = {}
    for row in rows:
        count[row.set, row.kind] = count.get((row.set, row.kind), 0) + 1
    whole = {row.set: sum(share for kind, share in MIXTURE.items() if (row.set, kind) in count) for row in rows}
    return [MIXTURE[row.kind] / whole[row.set] / count[row.set, row.kind] for row in rows]


def _refusing(rows: Sequence[Row]) -> list[dict[str, float]]:
    """What share of each kind would be refused below a mean of similarity and overlap."""
    values: dict[str, list[float]] = {}
    for row in rows:
        values.setdefault(row.kind, []).append(_support(row.answer.prompt.signals) if row.answer.prompt else 0.0)
    found = []
    for threshold in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.5):
        shares = {kind: round(float(np.mean(np.array(v) < threshold)), 4) for kind, v in values.items()}
        found.append({"support_below": threshold, **shares})
    return found


def _support(signals: Mapping[str, float]) -> float:
    return (signals["similarity"] + signals["overlap"]) / 2


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    return {kind: n for kind in MIXTURE if (n := sum(row.kind == kind for row in rows))}


def _verbatim(row: Row) -> bool:
    return any(gold in row.answer.text for gold in row.asked.golds)


def _right(row: Row) -> bool:
    """Whether what is quoted, or would be without refusing, holds the answer.

    SQuAD's to the letter, for it is a span of the text; other sets' with case, punctuation and articles aside.
    """
    answer = row.answer
    text = answer.text
    if not answer.grounded and answer.prompt:
        text = answer.prompt.considered[0].text
    return any(gold in text for gold in row.asked.golds) or (row.set != MAIN and holds(text, row.asked.golds))


def _share(values: Sequence[bool]) -> float:
    return round(float(np.mean(values)), 4) if values else 0.0


def ask(memory: CompressedMemory, question: str) -> Answer:
    """The extractive answer, explained."""
    return memory.ask(question, mode="notepad", explain=True)


def shown(values: Sequence[T]) -> Iterator[T]:
    """The values, with a line of progress now and then."""
    started = time.perf_counter()
    for number, value in enumerate(values, 1):
        yield value
        if number % 100 == 0 or number == len(values):
            print(f"  {number} of {len(values)}, {time.perf_counter() - started:.0f} s", flush=True)
