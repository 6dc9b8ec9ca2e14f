"""An agent that remembers across restarts: every message is a process of its own, and nothing else is shared.

    python examples/agent.py --db agent.db "My daughter is allergic to walnuts."
    python examples/agent.py --db agent.db "What is my daughter allergic to?"
    python examples/agent.py                  # plays the story: tells in one process, asks in another

What ends with a question mark is answered from the memory; anything else is remembered, as the next turn of one
conversation. The agent's own answers are not remembered: it would come to believe itself.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from ttt_memory import CompressedMemory, Document, TTTMemoryError

TOLD = (
    "My daughter Mina is allergic to walnuts.",
    "The spare key hangs behind the blue door.",
    "On Thursday the plumber comes at nine to mend the boiler.",
)
ASKED = ("What is Mina allergic to?", "Where is the spare key?", "When does the plumber come?")


class Agent:
    """One user's agent. Its only state is the memory."""

    def __init__(self, memory: CompressedMemory) -> None:
        self.memory = memory

    def reply(self, message: str) -> str:
        """Answer a question, or remember a statement."""
        return self._answer(message) if message.rstrip().endswith("?") else self._remember(message)

    def _answer(self, question: str) -> str:
        answer = self.memory.ask(question, limit=1)
        if not answer.grounded:
            return "You have not told me."
        told = self.memory.get(answer.citations[0].document_id)
        return f"You said: “{answer.citations[0].text}” (message {told.sequence}, {told.observed_at:%d %B})"

    def _remember(self, message: str) -> str:
        receipt = self.memory.ingest(Document(text=message, stream="conversation"))
        told = self.memory.get(receipt.document_id)
        return f"I will remember that (message {told.sequence}, {receipt.tokens} tokens learned)."


def converse(db: Path, model: str | None, messages: Sequence[str]) -> None:
    """One life of the agent: open the memory, reply to each message, close it."""
    with CompressedMemory.open(f"sqlite:///{db}", tenant="me", model=model) as memory:
        agent = Agent(memory)
        print(f"[process {os.getpid()} begins with {memory.stats().documents} messages remembered]")
        for message in messages:
            print(f"> {message}\n  {agent.reply(message)}")


def story(db: Path, model: str | None) -> None:
    """Tell in one process, ask in the next: two lives that share a file and nothing else."""
    for messages in (TOLD, ASKED):
        command = [sys.executable, __file__, "--db", str(db), *(("--model", model) if model else ()), *messages]
        subprocess.run(command, check=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line; reply, or play the story."""
    parser = argparse.ArgumentParser(description="An agent with memory across restarts.")
    parser.add_argument("messages", nargs="*", metavar="MESSAGE", help="statements and questions; default: the story")
    parser.add_argument("--db", type=Path, help="the memory's SQLite file (the story's default: a temporary one)")
    parser.add_argument("--model", help="smollm2-135m-ttt (default), smollm2-135m, tiny, a folder or a GGUF file")
    options = parser.parse_args(arguments)
    if options.messages and not options.db:
        parser.error("name the memory's file: --db agent.db")
    try:
        if options.messages:
            converse(options.db, options.model, options.messages)
        else:
            with tempfile.TemporaryDirectory() as folder:
                story(options.db or Path(folder) / "agent.db", options.model)
    except TTTMemoryError as error:
        print(error, file=sys.stderr)
        return 1
    except subprocess.CalledProcessError as error:
        return error.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
