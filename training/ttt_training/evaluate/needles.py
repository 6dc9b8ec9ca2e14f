"""Needles: codes put into a book at several distances from its end, asked for with and without the notepad."""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ttt_memory.model.fold import Segment, score
from ttt_memory.model.generate import Sampling, generate
from ttt_memory.model.loaded import LoadedModel, Tokenizer
from ttt_memory.model.state import FastWeights
from ttt_training.data.normalise import NORMALISER_VERSION
from ttt_training.evaluate.books import Book
from ttt_training.evaluate.progress import Progress
from ttt_training.evaluate.reading import drain, learn
from ttt_training.evaluate.subjects import Subject

DISTANCES = (256, 512, 2_048, 4_096, 8_192, 14_336)
"""Tokens between a needle and the end of the text."""
CANDIDATES = 10
"""Codes of which the weights have to choose one; the others were not read."""
MOST = 12
"""Needles of a text: each has a name of its own."""
_DIGITS = 6
_NAMES = (
    "Amberley Birchwood Calloway Dunmore Elstead Fairholt Garsdale Hexworth Ilkeston Jesmond Kirkby Langholm".split()
)

AskNotepad = Callable[[str, Sequence[str]], list[str]]
"""(text, questions) to answers: a memory that keeps the text searchable and quotes from it."""


@dataclass(frozen=True)
class Needle:
    """A code under a name, and how far from the end of the text it stands."""

    name: str
    code: str
    distance: int

    @property
    def sentence(self) -> str:
        """As it stands in the text."""
        return f"The access code of {self.name} is {self.code}."

    @property
    def cue(self) -> str:
        """What the weights continue."""
        return f"The access code of {self.name} is"

    @property
    def question(self) -> str:
        """What the memory is asked."""
        return f"What is the access code of {self.name}?"


def hide(tokenizer: Tokenizer, tokens: np.ndarray, distances: Sequence[int], seed: int) -> tuple[str, list[Needle]]:
    """The text of `tokens` with a needle in a paragraph of its own at each distance; the same seed gives the same."""
    drawn = random.Random(seed)
    names = drawn.sample(_NAMES, len(distances))
    needles = [
        Needle(name, _code(drawn), far) for name, far in zip(names, sorted(distances, reverse=True), strict=True)
    ]
    pieces, start = [], 0
    for needle in needles:
        place = max(start, len(tokens) - needle.distance)
        pieces += [tokenizer.decode(tokens[start:place]), f"\n\n{needle.sentence}\n\n"]
        start = place
    return "".join([*pieces, tokenizer.decode(tokens[start:])]), needles


def needles(
    subject: Subject,
    texts: Sequence[Book],
    tokens: int,
    progress: Progress,
    *,
    distances: Sequence[int] = DISTANCES,
    notepad: AskNotepad | None = None,
) -> dict[str, Any]:
    """Reads `tokens` tokens of each text, needles included, then asks for every needle.

    Args:
        subject: one that writes.
        texts: haystacks.
        tokens: read of each.
        progress: keeps every text once it is done.
        distances: of the needles from the end; at most MOST.
        notepad: also asks a memory's notepad.

    Returns:
        Means over texts by distance: `weights`, `w0` (closed book, in a fresh window: `chosen`, the share of codes
        picked out of 10; `exact`, the share written out; `nats` per token of the code), `window` (`exact` with the end
        of the text still in the window), `hybrid` (share of answers with the code in them).
    """
    rows: list[dict[str, Any]] = []
    for index, text in enumerate(texts):
        key = {
            "measurement": "needles",
            "text": text.name,
            "tokens": tokens,
            "distances": list(distances),
            "notepad": notepad is not None,
            "normaliser": NORMALISER_VERSION,
            "seed": index,
            **subject.identity,
        }

        def work(index: int = index, text: Book = text) -> dict[str, Any]:
            return {"needles": _ask(subject, text.tokens[:tokens], distances, index, notepad)}

        rows += progress.once(key, f"{text.name} needles", 1.0, work)["needles"]
    return {"texts": len(texts), "by_distance": {str(d): _means(rows, d) for d in distances}, "needles": rows}


def _ask(
    subject: Subject, tokens: np.ndarray, distances: Sequence[int], seed: int, notepad: AskNotepad | None
) -> list[dict[str, Any]]:
    assert subject.state is not None
    model = subject.model
    haystack, hidden = hide(model.tokenizer, tokens, distances, seed)
    read = model.tokenizer.encode(haystack)
    _, state = learn(model, subject.state, read)
    answers = [""] * len(hidden) if notepad is None else notepad(haystack, [needle.question for needle in hidden])
    cues = {needle.name: model.tokenizer.encode(f"\n\n{needle.cue}") for needle in hidden}
    room = max(0, (model.config.window or len(read)) - max(map(len, cues.values())))
    rows = []
    for needle, answer in zip(hidden, answers, strict=True):
        row: dict[str, Any] = {"distance": needle.distance, "code": needle.code}
        for name, weights in (("weights", state), ("w0", subject.state)):
            row[name] = _closed_book(model, weights, needle, seed)
        near = np.concatenate((read[len(read) - room :], cues[needle.name]))
        row["window"] = {"exact": float(_written(model, state, near).startswith(needle.code))}
        if notepad is not None:
            row["hybrid"] = {"exact": float(needle.code in answer)}
        rows.append(row)
    return rows


def _closed_book(model: LoadedModel, weights: FastWeights, needle: Needle, seed: int) -> dict[str, float]:
    drawn = random.Random(f"{seed} {needle.code}")
    codes = [needle.code, *(_code(drawn) for _ in range(CANDIDATES - 1))]
    cue = model.tokenizer.encode(needle.cue)
    start = np.concatenate((np.array([model.config.start_token], np.int32), cue))
    nats = [_nats(model, weights, start, code) for code in codes]
    return {
        "chosen": float(min(range(len(codes)), key=nats.__getitem__) == 0),
        "exact": float(_written(model, weights, start).startswith(needle.code)),
        "nats": nats[0],
    }


def _nats(model: LoadedModel, weights: FastWeights, context: np.ndarray, code: str) -> float:
    return float(np.mean(drain(score(model, weights, Segment(context, model.tokenizer.encode(f" {code}"))))))


def _written(model: LoadedModel, weights: FastWeights, prompt: np.ndarray) -> str:
    limit = len(model.tokenizer.encode(" " + "0" * _DIGITS))
    return re.sub(r"\s", "", "".join(generate(model, weights, prompt, Sampling(max_tokens=limit))))


def _code(drawn: random.Random) -> str:
    return "".join(drawn.choice("0123456789") for _ in range(_DIGITS))


def _means(rows: Sequence[Mapping[str, Any]], distance: int) -> dict[str, Any]:
    here = [row for row in rows if row["distance"] == distance]
    found: dict[str, Any] = {}
    for part in ("weights", "w0", "window", "hybrid"):
        if here and part in here[0]:
            found[part] = {name: math.fsum(row[part][name] for row in here) / len(here) for name in here[0][part]}
    return found
