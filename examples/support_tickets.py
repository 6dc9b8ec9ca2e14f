"""A support assistant: reads tickets that were solved, and answers a new one with quotes from them.

    python examples/support_tickets.py                                     # the tickets in examples/data
    python examples/support_tickets.py "The heater shows H-17"             # a question of your own
    python examples/support_tickets.py --tickets export.jsonl --db support.db "..."

Each line of the file is a ticket. Its short fields can be filtered by (`record.status`); its words are quoted.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from ttt_memory import Answer, CompressedMemory, TTTMemoryError
from ttt_memory.loaders import place

TICKETS = Path(__file__).parent / "data" / "tickets.jsonl"
QUESTIONS = (
    "My heater shows error H-17, what does that mean?",
    "Which part replaces the gasket of the pump?",
    "Are used devices taken back?",
    "Do you sell life insurance?",
)


def read(memory: CompressedMemory, tickets: Path) -> None:
    """Remember every ticket; those that are there already are recognised."""
    receipts = memory.ingest(tickets)
    new = sum(receipt.created for receipt in receipts)
    print(f"{len(receipts)} tickets, {new} of them new, {sum(receipt.tokens for receipt in receipts):,} tokens")


def ask(memory: CompressedMemory, question: str) -> Answer:
    """Answer from solved tickets only, and say which ones."""
    answer = memory.ask(question, where={"record.status": "solved"}, limit=2)
    print(f"\n? {question}")
    if not answer.grounded:
        print("  No solved ticket answers this: hand it to a person.")
        return answer
    for citation in answer.citations:
        source = memory.get(citation.document_id)
        ticket = source.metadata["record"]
        where = place(source.metadata, source.text or "", citation.start)
        print(f"  {ticket['ticket']} ({ticket['product']}, {source.observed_at:%d %B}; {where})")
        print(f"    “{' '.join(citation.text.split())}”")
    return answer


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, read the tickets, answer the questions."""
    parser = argparse.ArgumentParser(description="Answer support questions with quotes from solved tickets.")
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help="default: four examples")
    parser.add_argument("--tickets", type=Path, default=TICKETS, help="JSON Lines, a ticket a line")
    parser.add_argument("--db", help="keep the memory in this SQLite file (default: in memory only)")
    parser.add_argument("--model", help="smollm2-135m-ttt (default), smollm2-135m, tiny, a folder or a GGUF file")
    options = parser.parse_args(arguments)
    url = f"sqlite:///{options.db}" if options.db else "sqlite://"
    try:
        with CompressedMemory.open(url, tenant="support", model=options.model) as memory:
            read(memory, options.tickets)
            for question in options.questions or QUESTIONS:
                ask(memory, question)
    except TTTMemoryError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
