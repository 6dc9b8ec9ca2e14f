"""How the demo looks: in a terminal with bars that move, in a log with plain lines."""

from __future__ import annotations

import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table

from ttt_memory import Answer, Progress, Receipt
from ttt_memory.types import ProgressCallback

_PLAIN_WIDTH = 100
_ANSWER, _QUOTE = 300, 140
"""Characters shown of an answer and of a quote under it; the offsets are those of the whole quote."""


class View:
    """Prints the story, counts the checks that failed, and keeps the time of each part."""

    def __init__(self) -> None:
        terminal = Console()
        self.console = terminal if terminal.is_terminal else Console(width=_PLAIN_WIDTH)
        self.failed: list[str] = []
        self.seconds: dict[str, float] = {}

    def part(self, title: str) -> None:
        """Begin a part of the story."""
        self.console.print()
        self.console.rule(f"[bold]{escape(title)}", align="left")

    def say(self, text: str) -> None:
        """A line of explanation."""
        self.console.print(escape(text), style="dim" if self.console.is_terminal else "")

    def check(self, claim: str, holds: bool) -> None:
        """A claim that the demo tests while it runs."""
        if not holds:
            self.failed.append(claim)
        mark = "[green]✓[/]" if holds else "[bold red]✗ NOT TRUE:[/]"
        self.console.print(f"  {mark} {escape(claim)}")

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Add the time of the block to a line of the last table."""
        started = time.perf_counter()
        yield
        self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - started

    @contextmanager
    def bar(self, name: str) -> Iterator[ProgressCallback]:
        """A bar while something is read; gives the callback for `progress=`. Gone when it is done."""
        columns = ("[cyan]{task.description:<22}", "{task.fields[stage]:<7}", "{task.fields[speed]:>9}")
        with Bars(
            *(TextColumn(column) for column in columns),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f}  {task.fields[loss]}"),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        ) as bars:
            task = bars.add_task(name, total=1, stage="", speed="", loss="")
            started = latest = time.perf_counter()
            before = Progress("", 0, 0, 0, None)

            def advance(step: Progress) -> None:
                nonlocal started, latest, before
                if step.stage != before.stage or step.done < before.done:  # another stage or document began
                    started = latest
                before, latest = step, time.perf_counter()
                rate = step.done / max(1e-6, latest - started)
                bars.update(
                    task,
                    completed=step.done,
                    total=step.total,
                    stage=step.stage,
                    speed=f"{rate:,.0f}/s",
                    loss="" if step.loss is None else f"loss {step.loss:.2f}",
                )

            yield advance

    def read(self, name: str, ingest: Callable[[ProgressCallback], Receipt]) -> Receipt:
        """Run one `ingest` under a bar, then print what its receipt says."""
        with self.timed("reading and learning"), self.bar(name) as progress:
            receipt = ingest(progress)
        surprise = "-" if receipt.surprise is None else f"{receipt.surprise:5.2f}"
        self.console.print(
            f"  {name:<24}{receipt.tokens:>7,} tokens {receipt.seconds:>6.1f} s"
            f" {receipt.tokens / max(receipt.seconds, 1e-6):>8,.0f} tokens/s   surprise {surprise}",
            highlight=False,
        )
        return receipt

    def answer(self, question: str, answer: Answer, names: dict[str, str], *, how: str) -> None:
        """A question, the answer, and the quotes under it."""
        seconds = sum(answer.timings.values())
        self.console.print(f"\n  [bold]{escape(question)}[/]   [dim]{escape(how)}, {seconds:.2f} s[/]", highlight=False)
        self._wrapped(_short(answer.text, _ANSWER) or "(nothing)", "    ")
        for citation in answer.citations[:2]:
            where = f"[{names.get(citation.document_id, citation.document_id)}, {citation.start}-{citation.end}]"
            quote = "" if citation.text in answer.text else f" “{_short(citation.text, _QUOTE)}”"
            self._wrapped(f"{where}{quote}", "      ", style="cyan")
        for note in answer.notes:
            self._wrapped(f"note: {note}", "      ", style="yellow")

    def table(self, heads: list[str], rows: list[list[str]]) -> None:
        """A table; all columns but the first are numbers."""
        table = Table(header_style="bold", show_header=any(heads))
        for index, head in enumerate(heads):
            table.add_column(head, justify="right" if index else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)

    def _wrapped(self, text: str, indent: str, *, style: str = "") -> None:
        width = min(self.console.width, _PLAIN_WIDTH) - 1
        for line in textwrap.wrap(text, width, initial_indent=indent, subsequent_indent=indent):
            self.console.print(escape(line), style=style, highlight=False)


def _short(text: str, most: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= most else flat[:most].rsplit(" ", 1)[0] + " …"


def size(count: float) -> str:
    """Bytes for people."""
    for unit in ("B", "KB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"
