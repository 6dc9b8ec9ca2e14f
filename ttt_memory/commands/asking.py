"""`ttt-memory ask` and `ttt-memory search`."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from ttt_memory.commands.endpoints import answerer_of
from ttt_memory.commands.output import err, line, out, print_json, shown
from ttt_memory.commands.place import Place, verb
from ttt_memory.commands.values import filter_of
from ttt_memory.loaders import place as place_of

if TYPE_CHECKING:
    from ttt_memory.memory import CompressedMemory
    from ttt_memory.types import Answer, Prompt

ASK = """
ttt-memory ask 'Who wrote the first program?'
ttt-memory ask 'What is the door code?' --where project=apollo --json
ttt-memory ask 'Go on in this style.' --mode weights
ttt-memory ask 'What did we decide?' --answerer generate
ttt-memory ask 'What did we decide?' --answerer openai:llama3 --base-url http://localhost:11434/v1 --explain
"""
SEARCH = """
ttt-memory search 'door code'
ttt-memory search kestrel-4471 --limit 3 --json
ttt-memory search outage --where '{"priority": {"$gte": 3}}' --as-of 2026-01-31
"""

ModeOption = Annotated[str, typer.Option("--mode", help="hybrid, notepad (quotes alone) or weights (closed book).")]
AnswererOption = Annotated[
    str,
    typer.Option(
        "--answerer",
        help="extract (quotes sentences), generate (the local model writes), or a model behind an endpoint: "
        "openai:MODEL or anthropic:MODEL, with the key in TTT_MEMORY_API_KEY.",
    ),
]
BaseUrlOption = Annotated[
    str | None,
    typer.Option("--base-url", metavar="URL", help="Of an answerer's endpoint, such as http://localhost:11434/v1."),
]
ExplainOption = Annotated[bool, typer.Option("--explain", help="Also show what the answer was made from.")]
LimitOption = Annotated[int, typer.Option("--limit", help="Passages at most.")]
WhereOption = Annotated[
    list[str] | None,
    typer.Option("--where", metavar="FILTER", help="key=value, or a filter as a JSON object; all of them must hold."),
]
AsOfOption = Annotated[datetime | None, typer.Option("--as-of", help="Only what was observed until then; UTC.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    verb(app, "ask", examples=ASK)(_ask)
    verb(app, "search", examples=SEARCH)(_search)


def _ask(
    place: Place,
    question: Annotated[str, typer.Argument(help="In plain words.")],
    mode: ModeOption = "hybrid",
    answerer: AnswererOption = "extract",
    base_url: BaseUrlOption = None,
    limit: LimitOption = 5,
    where: WhereOption = None,
    as_of: AsOfOption = None,
    explain: ExplainOption = False,
) -> None:
    """Answer from this memory, with the quotes that support it. Never writes."""
    options = {
        "mode": mode,
        "answerer": answerer_of(answerer, base_url),
        "limit": limit,
        "where": filter_of(where),
        "as_of": as_of,
        "explain": explain,
    }
    with place.open(replay=reads_weights(mode, answerer)) as memory:
        if place.as_json:
            print_json(memory.ask(question, **cast(Any, options)))
        else:
            stream_answer(memory, question, options)


def reads_weights(mode: str, answerer: str) -> bool:
    """Whether an answer depends on the fast weights, so that it is worth waiting for what they have not read."""
    return mode == "weights" or (mode == "hybrid" and answerer == "generate")


def stream_answer(memory: CompressedMemory, question: str, options: dict[str, Any]) -> Answer:
    """Print an answer as it comes, then its quotes and notes."""
    pieces = memory.ask(question, stream=True, **options)
    try:
        for piece in pieces:
            sys.stdout.write(shown(piece))
            sys.stdout.flush()
    finally:
        sys.stdout.write("\n")
        pieces.close()
    answer = pieces.answer
    for number, quote in enumerate(answer.citations, 1):
        document = memory.get(quote.document_id)
        where = place_of(document.metadata, document.text or "", quote.start) or f"document {quote.document_id}"
        out().print(f"[{number}] {line(where)} ({quote.start}-{quote.end}): {line(quote.text)}", style="dim")
    if answer.mode == "weights":
        err().print("From the fast weights alone: style and gist, not facts; nothing is quoted.", style="dim")
    for note in answer.notes:
        err().print(f"Note: {shown(note)}")
    if answer.prompt:
        show_prompt(answer.prompt, answer)
    return answer


def show_prompt(prompt: Prompt, answer: Answer) -> None:
    """Print what an answer was made from."""
    console = err()
    console.print(f"\nAnswered by {shown(prompt.answerer)}; confidence {answer.confidence:.2f}", style="bold")
    if prompt.signals:
        console.print(", ".join(f"{name} {value:.3f}" for name, value in prompt.signals.items()), style="dim")
    for message in prompt.messages:
        console.print(f"--- {message.role}", style="bold")
        console.print(shown(message.content))
    for sentence in prompt.considered:
        mark = "quoted" if sentence.quoted else "      "
        console.print(
            f"{mark} {sentence.score:.3f} (similarity {sentence.similarity:.2f}, overlap {sentence.overlap:.2f}) "
            f"{line(sentence.text)}"
        )


def _search(
    place: Place,
    query: Annotated[str, typer.Argument(help="Words, a sentence, a name or a code.")],
    limit: LimitOption = 5,
    where: WhereOption = None,
    as_of: AsOfOption = None,
) -> None:
    """Find passages, best first; each quotes its document to the character."""
    chosen = filter_of(where)
    with place.open() as memory:
        hits = memory.search(query, limit=limit, where=chosen, as_of=as_of)
        if place.as_json:
            print_json(hits)
            return
        for hit in hits:
            name = place_of(hit.metadata) or "document"
            out().print(f"{hit.score:.3f}  {line(name)}  {hit.document_id} ({hit.start}-{hit.end})", style="bold")
            out().print(f"  {line(hit.text, 400)}")
        if not hits:
            err().print("Nothing found.")
