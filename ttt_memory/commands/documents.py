"""`ttt-memory documents`, `get`, `forget` and `log`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from ttt_memory.commands.asking import WhereOption
from ttt_memory.commands.output import (
    agreed,
    count,
    err,
    line,
    out,
    print_json,
    print_table,
    seconds,
    size,
    table,
    verbatim,
)
from ttt_memory.commands.place import Place, verb
from ttt_memory.commands.progress import verb_bar
from ttt_memory.commands.reports import LogEntry
from ttt_memory.commands.stopping import stoppable
from ttt_memory.commands.values import filter_of
from ttt_memory.loaders import place as place_of
from ttt_memory.types import DocumentInfo

DOCUMENTS = """
ttt-memory documents
ttt-memory documents --where kind=ticket --limit 20
ttt-memory documents --after 20 --limit 20 --json
"""
GET = """
ttt-memory get 5f0c2d... > notes.txt
ttt-memory get 5f0c2d... --json
"""
FORGET = """
ttt-memory forget 5f0c2d...
ttt-memory forget --where customer=42 --yes
"""
LOG = """
ttt-memory log
ttt-memory log --limit 10 --json
"""


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "documents", examples=DOCUMENTS)(_documents)
    verb(app, "get", examples=GET)(_get)
    verb(app, "forget", examples=FORGET)(_forget)
    verb(app, "log", examples=LOG)(_log)


def _documents(
    place: Place,
    where: WhereOption = None,
    limit: Annotated[int | None, typer.Option("--limit", help="Documents at most.")] = None,
    after: Annotated[int, typer.Option("--after", help="Go on after this position.")] = 0,
) -> None:
    """List live documents in the order of the ledger."""
    chosen = filter_of(where)
    with place.open() as memory:
        found = memory.documents(where=chosen, limit=limit, after=after)
        if place.as_json:
            print_json(found)
            return
        shown = table("position", "id", "observed", "tokens", "learned", "what")
        for document in found:
            shown.add_row(str(document.position), document.id, f"{document.observed_at:%Y-%m-%d %H:%M}",
                          f"{document.tokens:,}", _learned(document), _what(document))  # fmt: skip
        print_table(shown)


def _get(place: Place, document_id: Annotated[str, typer.Argument(help="Id from `documents`.")]) -> None:
    """Print a document's text as it was ingested."""
    with place.open() as memory:
        document = memory.get(document_id)
    if place.as_json:
        print_json(document)
    else:
        sys.stdout.write(verbatim(document.text or ""))


def _forget(
    place: Place,
    document_ids: Annotated[list[str] | None, typer.Argument(help="Ids from `documents`.", show_default=False)] = None,
    where: WhereOption = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Erase documents, and make the fast weights what they would be had they never been read.

    Shows what that costs and asks first. Stopped while relearning (Ctrl-C), the text stays erased; the next ingest
    takes the relearning up.
    """
    if bool(document_ids) == bool(where):
        raise typer.BadParameter("Name documents, or choose them with --where; one of the two.")
    chosen = filter_of(where)
    with place.open_memory() as memory:
        cost = memory.estimate(forget=document_ids or None, where=chosen)
        if not yes and cost.documents:
            if place.as_json or not sys.stdin.isatty():
                raise typer.BadParameter("Nobody can be asked here; --yes forgets without asking.")
            err().print(
                f"{count(cost.documents, 'document')}, {size(cost.bytes)} of text, to erase for good; then about "
                f"{count(cost.tokens, 'token')} to read again ({seconds(cost.seconds)})."
            )
            if not agreed("Forget?"):
                err().print("Nothing was forgotten.")
                raise typer.Exit(1)
        try:
            with stoppable(), verb_bar("relearning") as step:
                report = memory.forget(document_ids or None, where=chosen, progress=step)
        except KeyboardInterrupt:
            relearning = memory.stats().relearning
            done = "The text is erased; the next ingest takes the relearning up." if relearning else "Nothing is lost."
            err().print(f"Stopped. {done}")
            raise
        if place.as_json:
            print_json(report)
            return
        err().print(
            f"Forgot {count(len(report.documents), 'document')}; read {count(report.replayed_tokens, 'token')} again "
            f"in {seconds(report.seconds)}."
        )


def _log(
    place: Place, limit: Annotated[int | None, typer.Option("--limit", help="The last so many entries.")] = None
) -> None:
    """Show the ledger's history: documents and snapshots in the order in which they came."""
    with place.open() as memory:
        entries = [
            LogEntry(position=d.position, at=d.ingested_at, kind="document", document=d) for d in memory.documents()
        ]
        entries += [
            LogEntry(position=s.position, at=s.created_at, kind="snapshot", snapshot=s) for s in memory.snapshots()
        ]
    entries.sort(key=lambda entry: (entry.at, entry.position))
    entries = entries if limit is None else entries[-limit:] if limit > 0 else []
    if place.as_json:
        print_json(entries)
        return
    for entry in entries:
        if entry.document:
            what = f"{entry.document.id}  {_what(entry.document)} ({_learned(entry.document)})"
        else:
            assert entry.snapshot
            what = (
                f"snapshot {entry.snapshot.label or entry.snapshot.id}  ({count(entry.snapshot.documents, 'document')})"
            )
        out().print(f"{entry.at:%Y-%m-%d %H:%M:%S}  {entry.position:>5}  {what}")


def _learned(document: DocumentInfo) -> str:
    if not document.learn:
        return "not to be"
    if not document.learned:
        return "waiting"
    return "yes" if document.surprise is None else f"surprise {document.surprise:.2f}"


def _what(document: DocumentInfo) -> str:
    name = place_of(document.metadata) or "text"
    return line(name if document.stream is None else f"{name}, {document.stream}[{document.sequence}]", 60)
