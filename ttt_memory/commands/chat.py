"""`ttt-memory chat`: a conversation over a memory in the terminal."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import typer

from ttt_memory.commands.asking import (
    AnswererOption,
    BaseUrlOption,
    LimitOption,
    ModeOption,
    reads_weights,
    stream_answer,
)
from ttt_memory.commands.endpoints import answerer_of
from ttt_memory.commands.output import count, err, explain
from ttt_memory.commands.place import Place, verb
from ttt_memory.commands.progress import verb_bar
from ttt_memory.commands.stopping import stoppable
from ttt_memory.errors import TTTMemoryError

if TYPE_CHECKING:
    from ttt_memory.memory import CompressedMemory

EXAMPLES = """
ttt-memory chat
ttt-memory chat --answerer generate --tenant acme
"""
HELP = """Ask in plain words. Every question stands for itself; nothing you type is remembered unless you say so.
  /remember TEXT   remember a text
  /help            show this
  /quit            leave (so does Ctrl-D)
Ctrl-C stops an answer; at the prompt it leaves."""


def register(app: typer.Typer) -> None:
    """Add the command."""
    verb(app, "chat", examples=EXAMPLES)(_chat)


def _chat(
    place: Place,
    mode: ModeOption = "hybrid",
    answerer: AnswererOption = "extract",
    base_url: BaseUrlOption = None,
    limit: LimitOption = 5,
) -> None:
    """Talk with this memory: streamed answers with their quotes, and /remember."""
    if place.as_json:
        raise typer.BadParameter("chat is for people; programs use: ttt-memory ask --json.")
    options = {"mode": mode, "answerer": answerer_of(answerer, base_url), "limit": limit}
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - gives input() a history and line editing
    remembered = 0
    with place.open_memory(create=True, replay=reads_weights(mode, answerer)) as memory:
        err().print(f"Memory of {place.name!r}: {count(memory.stats().documents, 'document')}. /help says what to do.")
        try:
            while (said := _prompt()) is not None:
                remembered += _answer(memory, said, options)
        except KeyboardInterrupt:
            err().print(f"\nLeft. Remembered in this conversation: {count(remembered, 'text')}.")
            raise


def _prompt() -> str | None:
    """What the user says; None at the end."""
    while True:
        try:
            said = input("> ").strip()
        except EOFError:
            sys.stdout.write("\n")
            return None
        command = said.split(maxsplit=1)[0] if said else ""
        if command == "/quit":
            return None
        if command == "/help":
            err().print(HELP)
        elif said:
            return said


def _answer(memory: CompressedMemory, said: str, options: dict[str, Any]) -> int:
    """Do what was said. Returns the number of texts remembered."""
    try:
        with stoppable():
            if said.startswith("/remember"):
                return _remember(memory, said.removeprefix("/remember").strip())
            if said.startswith("/"):
                err().print(f"There is no command {said.split(maxsplit=1)[0]}; /help lists them.")
            else:
                stream_answer(memory, said, options)
    except TTTMemoryError as error:
        explain(error)
    except KeyboardInterrupt:
        err().print("(stopped)")
    return 0


def _remember(memory: CompressedMemory, text: str) -> int:
    if not text:
        err().print("Say what to remember: /remember TEXT")
        return 0
    with verb_bar("remembering") as step:
        receipt = memory.ingest(text, progress=step)
    err().print(f"Remembered ({receipt.document_id})." if receipt.created else "I knew that already.")
    return int(receipt.created)
