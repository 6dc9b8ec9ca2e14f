"""What reading much does to other texts: the loss on fresh text after more and more tokens of other documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ttt_training.evaluate.books import Book
from ttt_training.evaluate.bootstrap import paired
from ttt_training.evaluate.long_reading import LongReading
from ttt_training.evaluate.progress import Progress
from ttt_training.evaluate.reading import fresh
from ttt_training.evaluate.saved_state import SavedStates
from ttt_training.evaluate.subjects import Subject


def drift(
    subject: Subject,
    read: Sequence[Book],
    unread: Sequence[Book],
    *,
    stops: Sequence[int],
    piece: int,
    stretch: int,
    progress: Progress,
    states: SavedStates,
) -> dict[str, Any]:
    """Reads `piece` tokens of one document after another; at each stop scores the start of every unread text.

    Args:
        subject: one that writes.
        read, unread: different documents.
        stops: how many documents are read before each scoring, rising, from 0 (W0).
        piece: tokens read of each document.
        stretch: tokens scored of each unread text, in a fresh window.
        progress, states: keep what was done.

    Returns:
        `stops`: tokens read, mean loss, losses of the unread texts, and the interval of their rise over the first stop.
    """
    reading = LongReading(subject, read, piece, states)
    found: list[dict[str, Any]] = []
    for before, count in zip([0, *stops], stops, strict=False):

        def work(count: int = count) -> dict[str, Any]:
            state = reading.after(count)
            return {"losses": [fresh(subject.model, state, text.tokens[:stretch]) for text in unread]}

        key = {"measurement": "drift", "unread": [t.name for t in unread], "stretch": stretch, **reading.key(count)}
        cost = cost_of(count - before, piece, len(unread), stretch)
        losses = progress.once(key, f"after {count * piece} tokens", cost, work)["losses"]
        first = found[0]["losses"] if found else losses
        rise = paired(np.subtract(losses, first)).to_dict()
        found.append({"read": count * piece, "loss": float(np.mean(losses)), "rise": rise, "losses": losses})
    return {"stops": found}


def cost_of(documents: int, piece: int, unread: int, stretch: int) -> float:
    """What one stop costs, in tokens read with writes."""
    return documents * piece + 0.5 * unread * stretch
