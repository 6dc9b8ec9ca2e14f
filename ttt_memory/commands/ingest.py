"""`ttt-memory ingest`."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress as Bars

from ttt_memory.commands.output import count, err, explain, line, out, print_json, seconds
from ttt_memory.commands.place import Place, verb
from ttt_memory.commands.progress import IngestBar, bars
from ttt_memory.commands.reports import ErrorInfo, Ingested, IngestReport
from ttt_memory.commands.sources import Options, Sources
from ttt_memory.commands.values import pairs
from ttt_memory.errors import TTTMemoryError
from ttt_memory.types import Document, Receipt

if TYPE_CHECKING:
    from ttt_memory.memory import CompressedMemory

EXAMPLES = """
ttt-memory ingest notes.md reports/*.pdf
ttt-memory ingest 'docs/**/*.md' --metadata project=apollo --metadata priority=3
git log | ttt-memory ingest - --metadata kind=history
echo 'The door code is kestrel-4471.' | ttt-memory ingest - --stream house
ttt-memory ingest --follow /var/log/app.log
"""


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "ingest", examples=EXAMPLES)(_ingest)


def _ingest(
    place: Place,
    sources: Annotated[list[str], typer.Argument(help="Files, folders, patterns; - is standard input.")],
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", metavar="KEY=VALUE", help="For every document; JSON values are read as such."),
    ] = None,
    stream: Annotated[str | None, typer.Option("--stream", help="Append to this conversation or log.")] = None,
    observed_at: Annotated[
        datetime | None, typer.Option("--observed-at", help="When the content was true; UTC. Default: now.")
    ] = None,
    no_learn: Annotated[
        bool, typer.Option("--no-learn", help="Store it searchable; leave the fast weights as they are.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", help="Go on reading one growing log file, until Ctrl-C.")] = False,
) -> None:
    """Remember files: verbatim in the notepad, and learned by the fast weights.

    A source that cannot be read is reported and the others go on; the exit code is then 1. What was ingested before is
    recognised and not read twice. Ctrl-C keeps every document that is finished.
    """
    options = Options(pairs(metadata), stream, observed_at)
    if follow and (len(sources) != 1 or sources[0] == "-" or stream):
        raise typer.BadParameter("--follow takes one file, and names the stream itself.")
    given = None if follow else Sources(sources, options)
    with place.open(create=True, replay=not no_learn) as memory:
        run = _Run(memory, place, learn=not no_learn)
        if given is None:
            run.follow(Path(sources[0]), options)
        else:
            run.all(given)
        run.report()
        code = 130 if run.interrupted and not follow else 1 if run.failures else 0
    raise typer.Exit(code)


class _Run:
    """One `ingest`: what was done, printed as it is done."""

    def __init__(self, memory: CompressedMemory, place: Place, *, learn: bool) -> None:
        self.memory, self.place, self.learn = memory, place, learn
        self.results: list[Ingested] = []
        self.interrupted = False
        self.started = time.perf_counter()
        self.before = memory.stats().position

    @property
    def failures(self) -> int:
        return sum(result.error is not None for result in self.results)

    def all(self, sources: Sources) -> None:
        """Ingest every document; Ctrl-C ends it."""
        try:
            found = (document for _, document in sources.documents(lambda *_: None))
            total = self.memory.estimate(found).tokens
            self._each(sources.documents(self._failed), total)
        except KeyboardInterrupt:
            self.interrupted = True

    def follow(self, path: Path, options: Options) -> None:
        """Ingest new lines of a log until Ctrl-C."""
        from ttt_memory.loaders import follow

        stop = threading.Event()
        before = signal.signal(signal.SIGINT, lambda *_: stop.set())
        err().print(f"Following {path} until Ctrl-C …")
        try:
            lines = follow(path, stop=stop, resume=self._resume)
            self._each(((str(path), options.on(document)) for document in lines), None)
        finally:
            signal.signal(signal.SIGINT, before)

    def _each(self, documents: Iterable[tuple[str, Document]], total: int | None) -> None:
        with bars() as drawn:
            bar = IngestBar(drawn, total)
            for name, document in documents:
                bar.begin(name)
                try:
                    receipt = self.memory.ingest(document, learn=self.learn, progress=bar.step)
                except TTTMemoryError as error:
                    self._failed(name, error)
                    continue
                bar.end(receipt.tokens)
                self.results.append(Ingested(source=name, receipt=receipt))
                if not self.place.as_json:
                    self._print(name, receipt, drawn)

    def _print(self, name: str, receipt: Receipt, drawn: Bars) -> None:
        """A line a document; above the bar where one is drawn on the same terminal."""
        text = f"{receipt.document_id}  {line(name)}  ({_done(receipt)})"
        if drawn.console.is_terminal and sys.stdout.isatty():
            drawn.console.print(text)
        else:
            out().print(text)

    def _resume(self, stream: str) -> int:
        """The byte after the last one that a log's stream holds."""
        found = [d.metadata.get("end", 0) for d in self.memory.documents() if d.stream == stream]
        return max(found, default=0)

    def _failed(self, name: str, error: TTTMemoryError) -> None:
        self.results.append(Ingested(source=name, error=ErrorInfo.of(error)))
        if not self.place.as_json:
            explain(error)

    def report(self) -> None:
        """Say what was done, and after Ctrl-C what was kept."""
        unlearned = []
        if self.interrupted:
            unlearned = [d.id for d in self.memory.documents(after=self.before) if d.learn and not d.learned]
        if self.place.as_json:
            report = IngestReport(
                results=tuple(self.results), interrupted=self.interrupted, stored_unlearned=tuple(unlearned)
            )
            print_json(report)
            return
        receipts = [result.receipt for result in self.results if result.receipt]
        new = [receipt for receipt in receipts if receipt.created]
        tokens = sum(receipt.tokens for receipt in new)
        spent = time.perf_counter() - self.started
        summary = f"{count(len(new), 'document')}, {count(tokens, 'token')} in {seconds(spent)}"
        if len(receipts) > len(new):
            summary += f"; {len(receipts) - len(new)} there already"
        if self.failures:
            summary += f"; {self.failures} failed"
        if not self.interrupted:
            err().print(summary + ".")
            return
        err().print(f"Stopped. Kept: {summary}.")
        if unlearned:
            err().print(
                f"Also kept: {unlearned[0]}, stored and searchable; the fast weights go on reading it at the next "
                "ingest. Of what came after it, nothing was stored."
            )


def _done(receipt: Receipt) -> str:
    if not receipt.created:
        return "there already"
    if not receipt.learned:
        return f"{count(receipt.tokens, 'token')} stored, not learned"
    surprise = "" if receipt.surprise is None else f", surprise {receipt.surprise:.2f}"
    return f"{count(receipt.tokens, 'token')} learned{surprise}"
