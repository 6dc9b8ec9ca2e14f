"""The command line: `ttt-memory`. Heavy libraries load only in the commands that need them."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Annotated

import typer

from ttt_memory.commands import asking, chat, doctor, documents, history, ingest, mcp, model, upkeep
from ttt_memory.commands.output import explain
from ttt_memory.commands.place import DB_HELP, JSON_HELP, MODEL_HELP, TENANT_HELP, Place
from ttt_memory.errors import TTTMemoryError

EPILOG = """\b
Examples:
  ttt-memory ingest notes/*.md
  ttt-memory ask 'What did we decide about the harbour?'
  ttt-memory chat --tenant acme
  ttt-memory doctor
\b
Exit codes: 0 done; 1 an error, or something found wrong; 2 misspelt; 130 stopped by Ctrl-C.
--db, --tenant, --model and --json may stand before or after the command."""

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, epilog=EPILOG)
for group in (ingest, asking, chat, documents, history, upkeep, mcp, doctor):
    group.register(app)
app.add_typer(model.app, name="model")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 after an error of this package, 2 where it was misspelt, 130 after Ctrl-C."""
    try:
        app(args=arguments, prog_name="ttt-memory")
    except TTTMemoryError as error:
        explain(error, as_json="--json" in (sys.argv[1:] if arguments is None else arguments))
        sys.exit(1)
    except OSError as error:  # of this machine: typically, what is printed cannot be written
        fix = "Check where the output goes, and that this disk has room."
        explain(TTTMemoryError("The command could not go on.", why=error.strerror or str(error), fix=fix))
        sys.exit(_without_output(1))


def _without_output(code: int) -> int:
    """The exit code; what is still to be printed is dropped where it cannot be, or Python would complain at its end."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return code


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    db: Annotated[
        str | None, typer.Option("--db", help=DB_HELP, envvar="TTT_MEMORY_DB", show_envvar=False, show_default=False)
    ] = None,
    tenant: Annotated[
        str | None,
        typer.Option("--tenant", help=TENANT_HELP, envvar="TTT_MEMORY_TENANT", show_envvar=False, show_default=False),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("--model", help=MODEL_HELP, envvar="TTT_MEMORY_MODEL", show_envvar=False, show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help=JSON_HELP)] = False,
    show_version: Annotated[bool, typer.Option("--version", help="Print the version and exit.", is_eager=True)] = False,
) -> None:
    """Agent memory that is learned, not only indexed."""
    context.obj = Place(db, tenant, model, as_json)
    if show_version:
        typer.echo(f"ttt-memory {version('ttt-memory')}")
        raise typer.Exit
