"""MiniLM that remembers, in a file outside the repository, what it computed: a repeated run embeds nothing."""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad.embedders.minilm import MiniLM
from ttt_memory.notepad.late import VERSION, Tokens, pack, unpack


class CachedMiniLM:
    """The default embedder, its passages' vectors kept by the text's digest. Token vectors are kept as they are stored.

    Give it to `CompressedMemory.open(embedder=...)`. Not for several threads at once.
    """

    def __init__(self, path: Path) -> None:
        self.inner = MiniLM.load()
        self.name, self.fingerprint = self.inner.name, self.inner.fingerprint
        self.dimensions, self.max_tokens = self.inner.dimensions, self.inner.max_tokens
        self.count_tokens, self.token_spans = self.inner.count_tokens, self.inner.token_spans
        self.computed = 0
        path.parent.mkdir(parents=True, exist_ok=True)
        self._store = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._store.execute("PRAGMA journal_mode=WAL")
        self._store.execute("CREATE TABLE IF NOT EXISTS texts (key BLOB PRIMARY KEY, vector BLOB, tokens BLOB)")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As `MiniLM.embed`."""
        return self.embed_tokens(texts)[0]

    def embed_tokens(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], list[Tokens]]:
        """As `MiniLM.embed_tokens`."""
        found = [self._one(text) for text in texts]
        vectors = np.stack([vector for vector, _ in found]) if found else np.zeros((0, self.dimensions), np.float32)
        return vectors, [tokens for _, tokens in found]

    def _one(self, text: str) -> tuple[NDArray[np.float32], Tokens]:
        key = hashlib.sha256(f"{self.fingerprint} {VERSION} {text}".encode()).digest()
        row = self._store.execute("SELECT vector, tokens FROM texts WHERE key = ?", (key,)).fetchone()
        if row is None:
            vectors, tokens = self.inner.embed_tokens([text])
            row = vectors[0].tobytes(), pack(tokens[0].vectors)
            self._store.execute("INSERT OR REPLACE INTO texts VALUES (?, ?, ?)", (key, *row))
            self.computed += 1
        spans = self.token_spans(text)[: self.max_tokens]
        return np.frombuffer(row[0], np.float32), Tokens(spans, unpack(row[1], len(spans)))
