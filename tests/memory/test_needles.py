"""Exact recall: 200 facts in 100,000 tokens, asked by name and by code, with the real embedder."""

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


@pytest.mark.timeout(400)
def test_two_hundred_needles(tmp_path, minilm):
    facts = needles(200)
    kept: list[str] = []
    count = 0
    for part in paragraphs(pydoc_text(*MODULES)):
        if count < 100_000:  # tokens of the embedder: those the notepad works with
            kept.append(part)
            count += minilm.count_tokens(part)
    assert count >= 100_000
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
