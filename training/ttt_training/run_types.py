"""What a run takes and gives."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from ttt_memory.model.fold import Segment

Progress = Callable[[Mapping[str, Any]], None]
"""Called after every outer step with what is logged of it."""


class Source(Protocol):
    """Training sequences in a fixed order, with a position to go back to."""

    def __iter__(self) -> Iterator[tuple[Segment, ...]]:
        """The sequences from here on."""

    def state(self) -> dict[str, Any]:
        """JSON-able position: what `__iter__` gives next."""

    def seek(self, state: dict[str, Any]) -> None:
        """Goes to a position."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended.

    Attributes:
        step: outer steps done.
        tokens: predicted tokens trained on.
        loss: of the last outer step, nats per token; NaN if there was none.
        skipped: outer steps without a finite loss or gradient.
        interrupted: a signal ended it; `train` with the same arguments goes on from `checkpoint`.
        checkpoint: the newest one's folder.
        parameters: file of the trained parameters under the network's names, fp32.
    """

    step: int
    tokens: int
    loss: float
    skipped: int
    interrupted: bool
    checkpoint: Path
    parameters: Path
