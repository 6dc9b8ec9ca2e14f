"""What the demo reads: documentation that is on this machine, and a chat and a log written for it."""

from __future__ import annotations

import importlib
import itertools
import json
import pydoc
from datetime import datetime
from pathlib import Path

from ttt_memory import Document

DATA = Path(__file__).parent / "data"
MODULES = ("argparse", "csv", "heapq", "json", "statistics", "textwrap")
PAGE = 6_000
"""Characters read of each module's documentation: 1,100 to 1,600 SmolLM2 tokens, about 8,000 for the six."""
PRIVATE_SESSION = 5
"""The session of the chat in which Ada gives away a door code, and which she later wants forgotten."""


def documentation(modules: int = len(MODULES)) -> list[Document]:
    """The beginning of the `pydoc` pages of standard modules, one document each."""
    return [Document(text=_page(name)[:PAGE], metadata={"name": f"pydoc {name}"}) for name in MODULES[:modules]]


def unread_documentation() -> str:
    """The part of the argparse page that follows what `documentation` gives: same subject, never read."""
    return _page("argparse")[PAGE : PAGE + 2_000]


def chat() -> list[Document]:
    """Nine sittings of one conversation, in order: appends 1 to 9 to the stream `marigold`."""
    lines = [json.loads(line) for line in (DATA / "chat.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        Document(
            text="\n".join(f"{turn['speaker']}: {turn['text']}" for turn in turns),
            metadata={"name": f"chat {turns[0]['time'][:10]}", "session": session},
            observed_at=datetime.fromisoformat(turns[0]["time"]),
            stream="marigold",
            sequence=session,
        )
        for session, turns in ((key, list(group)) for key, group in itertools.groupby(lines, lambda t: t["session"]))
    ]


def log() -> list[Document]:
    """Five days of a service's log, in order: appends 1 to 5 to the stream `orders-api`."""
    lines = (DATA / "service.log").read_text(encoding="utf-8").splitlines()
    days = itertools.groupby(lines, lambda line: line[:10])
    return [
        Document(
            text="\n".join(group),
            metadata={"name": f"log {day}"},
            observed_at=datetime.fromisoformat(f"{day}T00:00:00Z"),
            stream="orders-api",
            sequence=number,
        )
        for number, (day, group) in enumerate(days, start=1)
    ]


def _page(module: str) -> str:
    return pydoc.plain(pydoc.render_doc(importlib.import_module(module)))
