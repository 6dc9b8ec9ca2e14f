"""Agent memory that is learned, not only indexed.

    from ttt_memory import CompressedMemory

    with CompressedMemory.open("sqlite:///memory.db", tenant="acme") as memory:
        memory.ingest("Ada Lovelace wrote the first program in 1843.")
        print(memory.ask("Who wrote the first program?").text)

Importing this package loads none of torch, FAISS and SQLAlchemy; they come with the first `CompressedMemory.open`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ttt_memory import errors
from ttt_memory.errors import TTTMemoryError

if TYPE_CHECKING:
    from ttt_memory.aio import AsyncCompressedMemory
    from ttt_memory.answerers.protocol import Answerer
    from ttt_memory.memory import CompressedMemory
    from ttt_memory.model.generate import Sampling
    from ttt_memory.notepad.embedders import Embedder
    from ttt_memory.types import (
        Answer,
        Citation,
        Claim,
        Document,
        DocumentInfo,
        Estimate,
        ForgetReport,
        Message,
        Passage,
        Progress,
        Prompt,
        Receipt,
        Snapshot,
        Stats,
        VerifyReport,
    )

__version__ = "0.1.0"

_HOMES = {
    "Answerer": "ttt_memory.answerers.protocol",
    "AsyncCompressedMemory": "ttt_memory.aio",
    "CompressedMemory": "ttt_memory.memory",
    "Embedder": "ttt_memory.notepad.embedders",
    "Sampling": "ttt_memory.model.generate",
    **dict.fromkeys(
        """Answer Citation Claim Document DocumentInfo Estimate ForgetReport Message Passage Progress Prompt Receipt
        Snapshot Stats VerifyReport""".split(),
        "ttt_memory.types",
    ),
}

__all__ = [
    "Answer",
    "Answerer",
    "AsyncCompressedMemory",
    "Citation",
    "Claim",
    "CompressedMemory",
    "Document",
    "DocumentInfo",
    "Embedder",
    "Estimate",
    "ForgetReport",
    "Message",
    "Passage",
    "Progress",
    "Prompt",
    "Receipt",
    "Sampling",
    "Snapshot",
    "Stats",
    "TTTMemoryError",
    "VerifyReport",
    "errors",
]


def __getattr__(name: str) -> Any:
    if home := _HOMES.get(name):
        return getattr(import_module(home), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
