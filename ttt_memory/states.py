"""Published states of fast weights, and a cache of those whose handle is closed."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ttt_memory.ledger.records import Point
    from ttt_memory.model.state import FastWeights


@dataclass(frozen=True)
class Published:
    """An immutable state of the fast weights and the point of the ledger it stands for.

    Attributes:
        weights: the fast weights.
        through: the last ledger point read.
        segment: segments of the document at `through` that were read; None where all of it was.
        tokens: learned tokens of the lineage up to there.
        backend: where it was computed; None for W0, which is the same everywhere; empty where several were mixed.
    """

    weights: FastWeights
    through: Point
    segment: int | None
    tokens: int
    backend: Mapping[str, str] | None

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the canonical fp32 bytes."""
        return self.weights.digest()


class StateCache:
    """Least recently used states, bounded in bytes. Dropping one costs a read of a checkpoint, never data."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._states: OrderedDict[Hashable, Published] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> Published | None:
        """The state kept under `key`, if it is still there."""
        with self._lock:
            if key in self._states:
                self._states.move_to_end(key)
            return self._states.get(key)

    def put(self, key: Hashable, state: Published) -> None:
        """Keep a state; the least recently used ones make room."""
        with self._lock:
            self._states[key] = state
            self._states.move_to_end(key)
            while sum(s.weights.nbytes for s in self._states.values()) > self.max_bytes:
                self._states.popitem(last=False)
