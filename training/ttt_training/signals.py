"""Ctrl-C and SIGTERM end a run between two blocks of tokens, so that it can keep what it has."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class StopRequestedError(Exception):
    """Raised by `Stop.check` after a signal."""


class Stop:
    """Inside the context the first signal is remembered; a second one acts as it did before.

    Outside the main thread, where Python takes no signal handlers, nothing is caught.
    """

    _SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._remember) for number in self._SIGNALS}
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._restore()

    def check(self) -> None:
        """Raises StopRequestedError if a signal came."""
        if self.requested:
            raise StopRequestedError

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}
