"""Progress bars for verbs: tokens read, tokens a second, time left."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ttt_memory.commands.output import err, line
from ttt_memory.types import Progress, ProgressCallback

_STAGES = {"embed": "storing", "learn": "learning", "replay": "replaying", "export": "writing", "import": "reading"}


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:,.0f} {task.fields['unit']}/s")


class _Done(ProgressColumn):
    def render(self, task: Task) -> Text:
        total = "?" if task.total is None else f"{task.total:,.0f}"
        return Text(f"{task.completed:,.0f}/{total} {task.fields['unit']}")


def bars() -> Bars:
    """Bars on stderr; nothing is drawn where that is no terminal."""
    console = err()
    columns = (TextColumn("{task.description}", markup=False), BarColumn(bar_width=24), _Done(), _Speed())
    return Bars(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal, transient=True)


class IngestBar:
    """One bar for a whole `ingest`: tokens of finished documents, and of the one in hand as it is learned."""

    def __init__(self, drawn: Bars, total: int | None) -> None:
        self._bars, self._finished = drawn, 0
        self._task = drawn.add_task("", total=total, unit="tokens")
        self._source = ""

    def begin(self, source: str) -> None:
        """Name the document in hand."""
        self._source = line(source, 40)
        self._bars.update(self._task, description=self._source)

    def step(self, step: Progress) -> None:
        """Callback of the verb."""
        stage = _STAGES.get(step.stage, step.stage)
        loss = "" if step.loss is None else f", loss {step.loss:.2f}"
        self._bars.update(self._task, description=f"{self._source}: {stage}{loss}")
        if step.stage == "learn":
            self._bars.update(self._task, completed=self._finished + step.done)

    def end(self, tokens: int) -> None:
        """Count the document as finished."""
        self._finished += tokens
        self._bars.update(self._task, completed=self._finished)


@contextlib.contextmanager
def verb_bar(name: str) -> Iterator[ProgressCallback]:
    """A callback that draws one bar for every stage and document a verb reports."""
    with bars() as drawn:
        tasks: dict[tuple[str, int], int] = {}

        def step(step: Progress) -> None:
            key = (step.stage, step.document)
            if key not in tasks:
                for task in drawn.task_ids:
                    drawn.remove_task(task)
                unit = "tokens" if step.stage in ("learn", "replay") else "documents"
                description = f"{name}: {_STAGES.get(step.stage, step.stage)}"
                tasks[key] = drawn.add_task(description, total=step.total, unit=unit)
            drawn.update(drawn.task_ids[0], completed=step.done)

        yield step
