"""Progress of a verb as MCP notifications: numbers that only grow, and not more of them than a client can draw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
from mcp.server.mcpserver import Context

from ttt_memory import Progress
from ttt_memory.types import ProgressCallback

_PAUSE_SECONDS = 0.2
_UNITS = {"learn": "tokens read", "replay": "tokens read again", "embed": "passages stored"}


class _Relay:
    """The newest step of a verb, as the numbers that a client is to see."""

    def __init__(self, context: Context[Any, Any]) -> None:
        self._context = context
        self._stage: tuple[str, int] | None = None
        self._before = self._done = self._sent = 0
        self._total: int | None = None
        self._message = ""
        self.news = anyio.Event()

    def step(self, step: Progress) -> None:
        """Take a step; called in the event loop. What earlier stages and documents counted stays counted."""
        if self._stage != (step.stage, step.document):
            self._stage, self._before = (step.stage, step.document), self._done
        self._done = max(self._done, self._before + step.done)
        # Passages are few beside the tokens that come after them: a total of theirs would fill the bar too early.
        self._total = None if step.stage == "embed" else self._before + step.total
        self._message = f"{step.done:,} of {step.total:,} {_UNITS.get(step.stage, step.stage)}"
        self.news.set()

    async def send(self) -> None:
        """Tell the client, where there is something new. A no-op where it did not ask for progress."""
        self.news = anyio.Event()
        if self._done > self._sent:
            self._sent = self._done
            await self._context.report_progress(self._done, self._total, self._message)

    async def run(self) -> None:
        """Tell the client until cancelled."""
        while True:
            await self.news.wait()
            await self.send()
            await anyio.sleep(_PAUSE_SECONDS)


@asynccontextmanager
async def reported(context: Context[Any, Any]) -> AsyncIterator[ProgressCallback]:
    """A `progress` callback for a verb of AsyncCompressedMemory, whose steps reach the client while inside."""
    relay = _Relay(context)
    failure: Exception | None = None
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(relay.run)
        try:
            yield relay.step
            await relay.send()
        except Exception as error:  # the task group would wrap it in a group
            failure = error
        tasks.cancel_scope.cancel()
    if failure:
        raise failure
