"""`reindex`: every passage cut and embedded anew, while the old index still answers."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TYPE_CHECKING

from ttt_memory.errors import ConflictError, NotFoundError
from ttt_memory.lane import LEARN, Lane, check_interrupt
from ttt_memory.ledger.records import DocumentRow, NewPassage
from ttt_memory.notepad.embedders import is_remote
from ttt_memory.notepad.heading import heading
from ttt_memory.notepad.preparing import prepare
from ttt_memory.notepad.terms import count_terms
from ttt_memory.spool import Spool
from ttt_memory.types import Progress, ProgressCallback

if TYPE_CHECKING:
    from ttt_memory.ledger.records import Head
    from ttt_memory.ledger.tenant import TenantLedger
    from ttt_memory.notepad.embedders import Embedder

Step = tuple[int, int]


def switch(
    ledger: TenantLedger,
    embedder: Embedder,
    pin: str,
    lane: Lane,
    progress: ProgressCallback | None,
    *,
    wait: bool,
) -> None:
    """Give every document passages of `embedder`, and the tenant the pin. Interrupted before its end, nothing changes.

    Raises ConflictError where another process wrote meanwhile and `wait` is False; else what it wrote is prepared, too.
    """
    with Spool() as spool:
        work = _Reindexing(ledger, embedder, pin, lane, progress, spool)
        while True:
            head = ledger.head()
            try:
                work(head)
            except (ConflictError, NotFoundError):
                if not wait or ledger.head().version == head.version:
                    raise
            else:
                return
            check_interrupt()


class _Reindexing:
    """Passages prepared with another embedder, and the change to them. Called with each newest head until one holds.

    What was prepared is kept between calls, so a document that another process appends meanwhile costs only itself.
    """

    def __init__(
        self,
        ledger: TenantLedger,
        embedder: Embedder,
        pin: str,
        lane: Lane,
        progress: ProgressCallback | None,
        spool: Spool,
    ) -> None:
        self._ledger, self._embedder, self._pin, self._lane = ledger, embedder, pin, lane
        self._progress, self._ready = progress, spool

    def __call__(self, head: Head) -> None:
        """Prepare what is missing, then switch. Raises ConflictError as `append`."""
        rows = self._ledger.indexed_documents()
        total = sum(row.characters for row in rows)
        done = sum(row.characters for row in rows if row.id in self._ready)
        for number, row in enumerate(rows):
            if row.id not in self._ready:
                self._ready.put(row.id, self._prepare(row, number, done, total))
                done += row.characters
        self._say(total, total, max(0, len(rows) - 1))  # the last moment at which it may raise: the switch is next
        self._ledger.reindex(self._pin, self._passages_of, expected_version=head.version)

    def _prepare(self, row: DocumentRow, number: int, done: int, total: int) -> list[NewPassage]:
        def on_step(step: Step) -> None:
            self._say(done + row.characters * step[0] // max(1, step[1]), total, number)

        text = self._ledger.text(row.id, detached=True)
        above = heading(row.metadata, row.observed_at, row.ingested_at)
        steps = prepare(text, self._embedder, heading=above)
        return embed_passages(steps, self._embedder, self._lane, on_step)

    def _passages_of(self, row: DocumentRow, text: str) -> list[NewPassage]:
        return [replace(p, terms=count_terms(text[p.start : p.end])) for p in self._ready.get(row.id)]

    def _say(self, done: int, total: int, number: int) -> None:
        if self._progress:
            self._progress(Progress("reindex", done, total, number, None))


def embed_passages(
    steps: Generator[Step, None, list[NewPassage]], embedder: Embedder, lane: Lane, on_step: Callable[[Step], None]
) -> list[NewPassage]:
    """Run `prepare`'s steps: on the compute lane, or in this thread where the embedder waits for a network."""
    if not is_remote(embedder):
        return lane.run(steps, priority=LEARN, on_step=on_step)
    try:
        while True:
            check_interrupt()
            on_step(next(steps))
    except StopIteration as stop:
        prepared: list[NewPassage] = stop.value
        return prepared
    finally:
        steps.close()
