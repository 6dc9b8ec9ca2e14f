"""Whether a memory belongs to what was read: each text under its own memory, under W0, under another text's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ttt_training.data.normalise import NORMALISER_VERSION
from ttt_training.evaluate.books import Book
from ttt_training.evaluate.bootstrap import paired
from ttt_training.evaluate.progress import Progress
from ttt_training.evaluate.reading import fresh, learn
from ttt_training.evaluate.saved_state import SavedStates
from ttt_training.evaluate.subjects import Subject

READ = 16_384
LATER = (20_480, 24_576)
AGAIN = (4_096, 8_192)
STRETCHES = ("later", "again")
STATES = ("own", "w0", "other")


def spans(read: int) -> dict[str, tuple[int, int]]:
    """The stretches that are scored when `read` tokens are read: unseen and later, and read again."""
    return {
        "later": (LATER[0] * read // READ, LATER[1] * read // READ),
        "again": (AGAIN[0] * read // READ, AGAIN[1] * read // READ),
    }


def specificity(
    subject: Subject, texts: Sequence[Book], read: int, progress: Progress, states: SavedStates
) -> dict[str, Any]:
    """Reads `read` tokens of each text; scores its stretches, in a fresh window, under three memories.

    "Another's" is the memory of the text before; the first text has the last one's.

    Args:
        subject: one that writes.
        texts: two or more, each long enough for the last stretch.
        read: tokens.
        progress, states: keep what was done.

    Returns:
        `documents`: losses by text, stretch and state; `intervals`: of w0 - own, other - own, other - w0 by stretch.
    """
    assert subject.state is not None
    model, w0 = subject.model, subject.state
    base = {"measurement": "specificity", "read": read, "normaliser": NORMALISER_VERSION, **subject.identity}

    def memory(index: int) -> Any:
        text = texts[index]
        slot = "last" if index == len(texts) - 1 else f"turn{index % 2}"
        return states.once(slot, base | {"text": text.name}, lambda: learn(model, w0, text.tokens[:read])[1])

    rows = []
    for index, text in enumerate(texts):

        def work(index: int = index, text: Book = text) -> dict[str, Any]:
            # The last text's memory is read first and kept in a slot of its own, then each one as it is needed.
            other, own = memory((index - 1) % len(texts)), memory(index)
            found: dict[str, Any] = {"document": text.name}
            for stretch, (first, last) in spans(read).items():
                tokens = text.tokens[first:last]
                found[stretch] = {
                    name: fresh(model, state, tokens) for name, state in zip(STATES, (own, w0, other), strict=True)
                }
            return found

        key = base | {"text": text.name, "other": texts[index - 1].name}
        rows.append(progress.once(key, f"{text.name} specificity", 1.0, work))
    return {"documents": rows, "intervals": {stretch: _intervals(rows, stretch) for stretch in STRETCHES}}


def _intervals(rows: Sequence[Mapping[str, Any]], stretch: str) -> dict[str, Any]:
    losses = {name: np.array([row[stretch][name] for row in rows]) for name in STATES}
    pairs = (("w0", "own"), ("other", "own"), ("other", "w0"))
    means = {name: float(values.mean()) for name, values in losses.items()}
    return means | {f"{a} - {b}": paired(losses[a] - losses[b]).to_dict() for a, b in pairs}
