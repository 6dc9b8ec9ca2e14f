"""`ttt-memory snapshot`, `snapshots`, `restore` and `fork`."""

from __future__ import annotations

from typing import Annotated

import typer

from ttt_memory.commands.output import count, err, line, out, print_json, print_table, table
from ttt_memory.commands.place import Place, verb
from ttt_memory.commands.progress import verb_bar

SnapshotArgument = Annotated[str, typer.Argument(help="Label or id from `snapshots`.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "snapshot", examples="ttt-memory snapshot before-the-import")(_snapshot)
    verb(app, "snapshots", examples="ttt-memory snapshots --json")(_snapshots)
    verb(app, "restore", examples="ttt-memory restore before-the-import")(_restore)
    verb(app, "fork", examples="ttt-memory fork experiment\nttt-memory fork experiment --at before-the-import")(_fork)


def _snapshot(
    place: Place,
    label: Annotated[str | None, typer.Argument(help="A name for this moment; may be left out.")] = None,
) -> None:
    """Name this moment, so that `restore` and `fork` can return to it."""
    with place.open(replay=True) as memory:
        snapshot = memory.snapshot(label)
    if place.as_json:
        print_json(snapshot)
    else:
        out().print(f"{snapshot.id}  {snapshot.label or ''}".rstrip())


def _snapshots(place: Place) -> None:
    """List snapshots, oldest first."""
    with place.open() as memory:
        found = memory.snapshots()
    if place.as_json:
        print_json(found)
        return
    shown = table("id", "label", "position", "documents", "made")
    for snapshot in found:
        shown.add_row(snapshot.id, line(snapshot.label or ""), str(snapshot.position), str(snapshot.documents),
                      f"{snapshot.created_at:%Y-%m-%d %H:%M}")  # fmt: skip
    print_table(shown)


def _restore(place: Place, snapshot: SnapshotArgument) -> None:
    """Move the memory to a snapshot, back or forward.

    Later documents are set aside, not erased: restoring a later snapshot brings them back. So take one first.
    """
    with place.open() as memory, verb_bar("relearning") as step:
        restored = memory.restore(snapshot, progress=step)
    if place.as_json:
        print_json(restored)
    else:
        err().print(f"Restored: {count(restored.documents, 'document')}, position {restored.position}.")


def _fork(
    place: Place,
    new_tenant: Annotated[str, typer.Argument(help="Name of the copy, a new tenant of the same store.")],
    at: Annotated[
        str | None, typer.Option("--at", help="Copy as it was at this snapshot. Default: as it is now.")
    ] = None,
) -> None:
    """Copy this memory to a new tenant. Nothing is shared: the copies go their own ways."""
    with place.open() as memory, verb_bar("copying") as step, memory.fork(new_tenant, at=at, progress=step) as copy:
        stats = copy.stats()
    if place.as_json:
        print_json(stats)
    else:
        err().print(f"Made tenant {new_tenant!r} with {count(stats.documents, 'document')}.")
