"""The fast weights after many documents, read one after the other and kept on the way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ttt_memory.model.state import FastWeights
from ttt_training.data.normalise import NORMALISER_VERSION
from ttt_training.evaluate.books import Book
from ttt_training.evaluate.reading import learn
from ttt_training.evaluate.saved_state import SavedStates
from ttt_training.evaluate.subjects import Subject

_SLOT = "reading"


class LongReading:
    """Reads the first `piece` tokens of each text, only as far as it is asked to.

    Args:
        subject: one that writes.
        texts: read in this order.
        piece: tokens of each.
        states: keeps the newest state.
    """

    def __init__(self, subject: Subject, texts: Sequence[Book], piece: int, states: SavedStates) -> None:
        self._subject, self._texts, self._piece, self._states = subject, texts, piece, states
        self._count, self._state = 0, self._start()

    def _start(self) -> FastWeights:
        assert self._subject.state is not None
        return self._subject.state

    def key(self, count: int) -> dict[str, Any]:
        """What the state after `count` documents is made of."""
        names = [text.name for text in self._texts[:count]]
        return {"read": names, "piece": self._piece, "normaliser": NORMALISER_VERSION, **self._subject.identity}

    def after(self, count: int) -> FastWeights:
        """The state after the first `count` documents; goes on from the nearest one that is kept."""
        if count < self._count:
            self._count, self._state = 0, self._start()
        for kept in range(count, self._count, -1):
            if (found := self._states.find(_SLOT, self.key(kept))) is not None:
                self._count, self._state = kept, found
                break
        while self._count < count:
            tokens, before = self._texts[self._count].tokens[: self._piece], self._state
            self._count += 1
            self._state = self._states.once(
                _SLOT,
                self.key(self._count),
                lambda t=tokens, s=before: learn(self._subject.model, s, t)[1],  # type: ignore[misc]
            )
        return self._state
