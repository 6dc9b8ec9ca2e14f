"""Memories of articles for the answers benchmark, with vectors and written answers kept between runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from answers_data import Article
from numpy.typing import NDArray

from ttt_memory import CompressedMemory
from ttt_memory.model.registry import DEFAULT_MODEL
from ttt_memory.notepad.embedders import load_embedder

OFTEN = 500
"""New vectors between two savings."""


class Vectors:
    """The default embedder, computing each text once in all runs."""

    remote = True
    """Most vectors are only looked up: not worth a turn on the embedding lane."""

    def __init__(self, folder: Path) -> None:
        self._embedder = load_embedder("minilm")
        self._file = folder / f"vectors-{self._embedder.fingerprint}.npz"
        self._known: dict[str, NDArray[np.float32]] = {}
        if self._file.exists():
            with np.load(self._file) as kept:
                self._known = dict(zip(kept["texts"].tolist(), kept["vectors"], strict=True))
        self._kept = len(self._known)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._embedder, name)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """As the embedder does, from memory where it can."""
        for text in texts:
            if text not in self._known:
                self._known[text] = self._embedder.embed([text])[0]
                if len(self._known) >= self._kept + OFTEN:
                    self.keep()
        found = [self._known[text] for text in texts]
        return np.stack(found) if found else self._embedder.embed([])

    def keep(self) -> None:
        """Write what is new."""
        if len(self._known) > self._kept:
            texts = [text for text in self._known if not text.endswith("\0")]
            partial = self._file.with_suffix(".partial.npz")
            np.savez(partial, texts=np.array(texts), vectors=np.stack([self._known[text] for text in texts]))
            partial.replace(self._file)
            self._kept = len(self._known)


class Kept:
    """Values by key in a file of JSON lines, added to as they come."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._values: dict[str, dict[str, Any]] = {}
        if file.exists():
            self._values = dict(json.loads(line) for line in file.read_text(encoding="utf-8").splitlines())

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def __getitem__(self, key: str) -> dict[str, Any]:
        return self._values[key]

    def add(self, key: str, value: dict[str, Any]) -> None:
        """Keep a value, now and in the file."""
        self._values[key] = value
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps([key, value]) + "\n")


def memory_of(read: Sequence[Article], store: Path, vectors: Vectors) -> CompressedMemory:
    """A memory that holds the articles' paragraphs, searchable and not learned; opened again where it is there."""
    fresh = not store.exists()
    memory = CompressedMemory.open(f"sqlite:///{store}", model=DEFAULT_MODEL, embedder=vectors)
    if fresh:
        for article in read:
            for paragraph in article.paragraphs:
                memory.ingest(paragraph, metadata={"title": article.title}, learn=False)
    return memory
