"""Ctrl-C: the first one ends the verb at the next moment where nothing is half done, the second one at once."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

from ttt_memory.commands.output import err
from ttt_memory.lane import interruptible


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, the first SIGINT makes a verb raise KeyboardInterrupt between two mini-batches or transactions."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        err().print("\nStopping after the step in hand (Ctrl-C again: at once) …")

    def check() -> None:
        if asked:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, on_signal)
    try:
        with interruptible(check):
            yield
    finally:
        signal.signal(signal.SIGINT, before)
