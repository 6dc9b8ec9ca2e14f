"""`ttt-memory stats`, `verify`, `reindex`, `export` and `import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ttt_memory.commands.endpoints import embedder_from_environment, embedder_of
from ttt_memory.commands.output import count, err, out, print_json, size
from ttt_memory.commands.place import Place, verb
from ttt_memory.commands.progress import verb_bar
from ttt_memory.commands.reports import Exported
from ttt_memory.commands.stopping import stoppable

REINDEX = """
ttt-memory reindex
ttt-memory reindex --embedder minilm --tenant acme
ttt-memory reindex --embedder openai:nomic-embed-text --base-url http://localhost:11434/v1
"""
_BYTES = ("state_bytes", "text_bytes", "store_bytes")


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "stats", examples="ttt-memory stats\nttt-memory stats --json --tenant acme")(_stats)
    verb(app, "verify", examples="ttt-memory verify\nttt-memory verify --replay")(_verify)
    verb(app, "reindex", examples=REINDEX)(_reindex)
    verb(app, "export", examples="ttt-memory export acme.ttt --tenant acme")(_export)
    verb(app, "import", examples="ttt-memory import acme.ttt --tenant acme-copy")(_import)


def _stats(place: Place) -> None:
    """Show sizes, counts, the model, and the digest of the fast weights."""
    with place.open() as memory:
        stats = memory.stats()
    if place.as_json:
        print_json(stats)
        return
    for key, value in stats.model_dump().items():
        text = size(value) if key in _BYTES else f"{value:,}" if type(value) is int else str(value)
        if isinstance(value, dict):
            text = ", ".join(f"{name} {part}" for name, part in value.items())
        out().print(f"{key.replace('_', ' '):<19} {text}")
    if stats.learned_through < stats.position:
        err().print("Some documents are not learned yet; the next ingest takes that up.")


def _verify(
    place: Place,
    replay: Annotated[
        bool, typer.Option("--replay", help="Also learn everything again from the start, and compare.")
    ] = False,
) -> None:
    """Check that what is stored is what was written, and what is derived follows from it. Exit code 1 where not."""
    with place.open(replay=replay) as memory, verb_bar("verifying") as step:
        report = memory.verify(replay=replay, progress=step)
    if place.as_json:
        print_json(report)
    else:
        for finding in report.findings:
            out().print(f"{finding.check}: {finding.subject}: {finding.detail}", style="bold red")
        replayed = f"; replayed: {report.replayed}" if report.replayed else ""
        result = "Nothing is wrong" if report.ok else f"{count(len(report.findings), 'finding')}"
        out().print(f"{result} ({', '.join(report.checks)}{replayed}). Digest {report.digest}")
    raise typer.Exit(0 if report.ok else 1)


def _reindex(
    place: Place,
    embedder: Annotated[
        str | None,
        typer.Option(
            "--embedder",
            help="minilm, hash, or a model behind an endpoint: openai:MODEL, with the key in TTT_MEMORY_API_KEY. "
            "Default: the present one.",
        ),
    ] = None,
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="Of the embedder's endpoint.")
    ] = None,
) -> None:
    """Cut and embed every passage anew; the weights stay. The old index answers until the new one is whole."""
    place.require()
    chosen = embedder_of(embedder, base_url) or embedder_from_environment()
    from ttt_memory.memory import CompressedMemory

    with stoppable(), verb_bar("reindexing") as step:
        before = place.embedder()
        with CompressedMemory.open(
            place.url,
            tenant=place.name,
            model=place.model,
            embedder=chosen,
            replay=False,
            reindex=True,
            progress=step,
        ) as memory:
            if place.embedder() == before:  # the same embedder: opening had no reason to
                memory.reindex(progress=step)
            stats = memory.stats()
    if place.as_json:
        print_json(stats)
    else:
        err().print(f"Indexed {count(stats.passages, 'passage')} with {stats.embedder!r}.")


def _export(place: Place, path: Annotated[Path, typer.Argument(help="A new file.")]) -> None:
    """Write this memory, with its snapshots and weights, to one checksummed archive."""
    with place.open() as memory, verb_bar("exporting") as step:
        written = memory.export(path, progress=step)
    if place.as_json:
        print_json(Exported(path=written, bytes=written.stat().st_size))
    else:
        err().print(f"Wrote {written} ({size(written.stat().st_size)}).")


def _import(place: Place, path: Annotated[Path, typer.Argument(help="An archive from `export`.")]) -> None:
    """Open an exported memory as a new tenant: under its old name, or the one that --tenant gives."""
    from ttt_memory.memory import CompressedMemory

    with (
        stoppable(),
        verb_bar("importing") as step,
        CompressedMemory.import_(path, place.url, tenant=place.tenant, progress=step) as memory,
    ):
        stats = memory.stats()
    if place.as_json:
        print_json(stats)
    else:
        err().print(f"Imported {count(stats.documents, 'document')} as tenant {stats.tenant!r}.")
