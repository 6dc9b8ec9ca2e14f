"""Exact recall: facts in a long text, asked by name and by code, with the real embedder.

`make test` hides 40 in 20,000 tokens, `make test-all` also 200 in 100,000.
"""

from itertools import pairwise

import pytest

from tests.memory.texts import haystack, needles, paragraphs, pydoc_text
from ttt_memory import CompressedMemory

MODULES = [
    "argparse", "asyncio", "collections", "configparser", "csv", "datetime", "decimal", "difflib", "email.message",
    "fractions", "ftplib", "http.client", "imaplib", "inspect", "ipaddress", "logging", "mailbox", "multiprocessing",
    "optparse", "pathlib", "plistlib", "sqlite3", "smtplib", "socket", "ssl", "statistics", "string", "subprocess",
    "tarfile", "threading", "tkinter", "turtle", "typing", "unittest", "urllib.request", "uuid", "zipfile",
]  # fmt: skip
SIZES = [pytest.param(40, 20_000, id="40"), pytest.param(200, 100_000, id="200", marks=pytest.mark.slow)]


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("hidden", "tokens"), SIZES)
def test_every_needle_is_found_and_cited(hidden, tokens, tmp_path, minilm):
    facts = needles(hidden)
    kept: list[str] = []
    count = 0
    for part in paragraphs(pydoc_text(*MODULES)):
        if count < tokens:  # tokens of the embedder: those the notepad works with
            kept.append(part)
            count += minilm.count_tokens(part)
    assert count >= tokens
    body = haystack(kept, facts)
    url = f"sqlite:///{tmp_path / 'memory.db'}"
    with CompressedMemory.open(url, model="tiny", embedder="minilm") as memory:
        third = len(body) // 3
        cuts = [0, body.index("\n\n", third), body.index("\n\n", 2 * third), len(body)]
        sources = {}
        for start, end in pairwise(cuts):
            sources[memory.ingest(body[start:end], learn=False).document_id] = body[start:end]
        for kind, name, code in facts:
            for question in (f"What is the {kind} for {name}?", f"Whose {kind} is {code}?"):
                hits = memory.search(question, limit=3)
                assert name in hits[0].text, question
                assert code in hits[0].text, question
                citations = memory.ask(question).citations
                assert code in citations[0].text, question
                for quote in (*hits, *citations):
                    assert sources[quote.document_id][quote.start : quote.end] == quote.text
