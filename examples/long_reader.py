"""A reader of long documents: reads a book page by page, answers with the page, and finds the pages that surprise.

    python examples/long_reader.py                                     # the documentation of two Python modules
    python examples/long_reader.py handbook.pdf "What is the late fee?"
    python examples/long_reader.py book.txt --db book.db "Who lit the lamp?"

A PDF, DOCX or PPTX has pages of its own (`pip install 'ttt-memory[loaders]'`); any other text gets one every 60 lines.
"""

from __future__ import annotations

import argparse
import importlib
import pydoc
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ttt_memory import Citation, CompressedMemory, Document, TTTMemoryError
from ttt_memory.loaders import load, place

LINES = 60
QUESTIONS = (
    "Which exception is raised when the mean of no data is asked for?",
    "Which common leading whitespace does dedent remove?",
)


def pages(name: str, text: str) -> Iterator[Document]:
    """Cut a text into pages of 60 lines; each one is a document that knows its number."""
    lines = text.splitlines(keepends=True)
    for number, first in enumerate(range(0, len(lines), LINES), 1):
        if (page := "".join(lines[first : first + LINES])).strip():
            yield Document(text=page, metadata={"name": name, "page": number})


def book(path: Path | None) -> Iterator[Document]:
    """The pages of a file, or, without one, of two modules' documentation."""
    if path is None:
        for module in ("statistics", "textwrap"):
            yield from pages(f"pydoc {module}", pydoc.plain(pydoc.render_doc(importlib.import_module(module))))
    else:
        documents = list(load(path))
        if any("page" in d.metadata or "slide" in d.metadata for d in documents):
            yield from documents
        else:
            yield from pages(path.name, "\n".join(d.text for d in documents))


def read(memory: CompressedMemory, path: Path | None) -> dict[str, float]:
    """Read every page once, in order. Returns the surprise of each, nats per token."""
    surprise: dict[str, float] = {}
    for page in book(path):
        receipt = memory.ingest(page)
        if receipt.surprise is not None:
            surprise[place(page.metadata)] = receipt.surprise
    stats = memory.stats()
    print(f"{stats.documents} pages, {stats.learned_tokens:,} tokens read, {stats.passages} passages")
    return surprise


def cited(memory: CompressedMemory, citation: Citation) -> str:
    """A quote and where it stands, after a look into the page that it is there to the character."""
    page = memory.get(citation.document_id)
    assert (page.text or "")[citation.start : citation.end] == citation.text
    return f"“{' '.join(citation.text.split())}” ({place(page.metadata, page.text or '', citation.start)})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, read, answer."""
    parser = argparse.ArgumentParser(description="Read a long document and answer with quotes and pages.")
    parser.add_argument("file", nargs="?", type=Path, help="default: the documentation of two Python modules")
    parser.add_argument("questions", nargs="*", metavar="QUESTION")
    parser.add_argument("--db", help="keep the memory in this SQLite file (default: in memory only)")
    parser.add_argument("--model", help="smollm2-135m-ttt (default), smollm2-135m, tiny, a folder or a GGUF file")
    options = parser.parse_args(arguments)
    url = f"sqlite:///{options.db}" if options.db else "sqlite://"
    try:
        with CompressedMemory.open(url, tenant="reader", model=options.model) as memory:
            surprise = read(memory, options.file)
            for where in sorted(surprise, key=surprise.__getitem__)[-1:]:
                print(f"the most surprising page: {where} ({surprise[where]:.2f} nats per token)")
            for question in options.questions or (QUESTIONS if options.file is None else ()):
                answer = memory.ask(question, limit=2)
                print(f"\n? {question}")
                for citation in answer.citations:
                    print(f"  {cited(memory, citation)}")
                if not answer.grounded:
                    print(f"  {answer.text}")
    except TTTMemoryError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
