"""How commands print: results to stdout, everything else to stderr, JSON where it is asked for."""

from __future__ import annotations

import sys
from typing import Any

from pydantic import TypeAdapter
from rich.console import Console
from rich.table import Table

from ttt_memory.commands.reports import ErrorInfo, ErrorReport
from ttt_memory.errors import TTTMemoryError

_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def out() -> Console:
    """Console for results, made anew so that it writes to what stdout is now."""
    return Console(highlight=False, markup=False, emoji=False, soft_wrap=True)


def err() -> Console:
    """Console for notes, questions and errors."""
    return Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as indented JSON."""
    sys.stdout.write(TypeAdapter(type(value)).dump_json(value, indent=2).decode() + "\n")


def shown(text: str) -> str:
    """Text of a document as a terminal may have it: escape sequences would let a document drive the terminal."""
    return text.translate(_CONTROLS)


def verbatim(text: str) -> str:
    """The text itself, except to a terminal."""
    return shown(text) if sys.stdout.isatty() else text


def line(text: str, length: int = 100) -> str:
    """The text on one line, cut to a length."""
    flat = " ".join(shown(text).split())
    return flat if len(flat) <= length else flat[: length - 1] + "…"


def table(*columns: str) -> Table:
    """A plain table; in a pipe it is as wide as it needs to be."""
    return Table(*columns, box=None, pad_edge=False, show_edge=False)


def print_table(content: Table) -> None:
    """Print a table; never cut it where no terminal sets a width."""
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 1000
    console.print(content)


def explain(error: TTTMemoryError, *, as_json: bool = False) -> None:
    """Print an error: for programs to stdout, for people to stderr."""
    if as_json:
        print_json(ErrorReport(error=ErrorInfo.of(error)))
        return
    console = err()
    console.print(f"Error: {shown(error.what)}", style="bold red")
    for title, text in (("Why", error.why), ("What to do", error.fix)):
        if text:
            console.print(f"{title}: {shown(text)}")


def agreed(question: str) -> bool:
    """Ask on stderr; anything but yes is no."""
    err().print(f"{question} [y/N]: ", end="")
    try:
        return input().strip().lower() in ("y", "yes")
    except EOFError:
        return False


def count(number: int, noun: str) -> str:
    """`1 document`, `1,234 documents`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def size(bytes_: int) -> str:
    """Bytes for people."""
    value = float(bytes_)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def seconds(value: float) -> str:
    """A duration for people."""
    if value < 90:
        return f"{value:.1f} s"
    return f"{value / 60:.0f} min" if value < 5400 else f"{value / 3600:.1f} h"
