"""The reference page of the command line, made from the commands themselves.

    python -m ttt_memory.commands.reference docs/cli-reference.md

writes it anew after a command has changed; a test compares.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from ttt_memory.cli import app

_COMMON = ("db", "tenant", "model", "as_json")
_INTRODUCTION = """# Command line reference

Made from the program by `python -m ttt_memory.commands.reference docs/cli-reference.md`; how to use it is in
[Use a memory from the command line](how-to/cli.md).

## Options of every command

They stand before or after the command. `chat` and `mcp` have no `--json`, and `model` has no memory to choose.

"""


def reference() -> str:
    """The page, as the file holds it."""
    root: Any = typer.main.get_command(app)
    common = [p for p in root.params if p.name in _COMMON]
    parts = [_INTRODUCTION + "\n".join(_options(common)) + "\n"]
    parts += [_section(name, command) for name, command in _commands(root)]
    return "\n".join(parts)


def _commands(group: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Names and commands, those of groups after their group's name, in the order of `--help`."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def _section(name: str, command: Any) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and p.name not in _COMMON]
    own_json = [p for p in command.params if p.name == "as_json"] if name.startswith("model ") else []
    usage = " ".join(["ttt-memory", name, *(["[OPTIONS]"] if command.params else []), *map(_placed, arguments)])
    lines = [f"## {name}", "", _text(command.help), "", "```text", usage, "```", ""]
    if arguments:
        lines += ["| argument | |", "| --- | --- |"]
        lines += [f"| `{_placed(argument)}` | {_cell(argument.help)} |" for argument in arguments]
        lines += [""]
    if options or own_json:
        lines += [*_options([*options, *own_json]), ""]
    if command.epilog:
        shown = command.epilog.partition("Examples:\n")[2].splitlines()
        lines += ["```text", *(line.strip() for line in shown), "```", ""]
    return "\n".join(lines)


def _options(parameters: list[Any]) -> Iterator[str]:
    yield "| option | default | |"
    yield "| --- | --- | --- |"
    for option in parameters:
        names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
        flag = getattr(option, "is_flag", False)
        value = "" if flag else f" `{option.metavar or option.name.upper()}`"
        often = " May be given several times." if option.multiple else ""
        default = "" if flag or option.default is None or option.multiple else f"`{option.default}`"
        yield f"| {names}{value} | {default} | {_cell(option.help)}{often} |"


def _placed(argument: Any) -> str:
    name = (argument.metavar or argument.name).upper().strip("[].")
    name += "..." if argument.nargs == -1 else ""
    return name if argument.required else f"[{name}]"


def _text(help_: str | None) -> str:
    return "\n\n".join(" ".join(part.split()) for part in (help_ or "").replace("\b", "").split("\n\n"))


def _cell(help_: str | None) -> str:
    return " ".join((help_ or "").split()).replace("|", "\\|")


def write(path: Path) -> None:
    """Write the page to a file."""
    path.write_text(reference(), encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
