"""Embedders: texts to unit vectors, and their own tokens with character offsets.

This module loads neither torch nor weights; `load_embedder` does, when asked for an embedder that needs them.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from ttt_memory.errors import InvalidInputError

__all__ = ["DEFAULT_EMBEDDER", "EMBEDDERS", "Embedder", "is_remote", "load_embedder", "resolve"]

DEFAULT_EMBEDDER = "minilm"
EMBEDDERS = ("minilm", "hash")
"""Names that `load_embedder` knows."""


class Embedder(Protocol):
    """What the notepad needs of an embedder. Instances are immutable and may be shared between threads.

    One that waits for a network instead of computing may say `remote = True`: it is then called in the caller's thread,
    and not on the lane where local models take turns.
    """

    @property
    def name(self) -> str:
        """Short name without white space, for messages; of the built-in ones also for `load_embedder`."""

    @property
    def dimensions(self) -> int:
        """Length of a vector."""

    @property
    def fingerprint(self) -> str:
        """Names the function from texts to vectors: vectors of different fingerprints cannot be compared."""

    @property
    def max_tokens(self) -> int:
        """Tokens of a text that are read; what follows them does not change the vector."""

    def count_tokens(self, text: str) -> int:
        """Number of the embedder's own tokens in `text`."""

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each token, in characters of `text`; ascending, possibly of the same word."""

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """fp32 [N, dimensions], L2-normalised; zeros for a text without tokens.

        Every text is computed by itself, so its vector does not depend on the others in the call.
        """


_lock = threading.Lock()
_loaded: dict[str, Embedder] = {}


def load_embedder(spec: str = DEFAULT_EMBEDDER) -> Embedder:
    """The embedder `minilm` or `hash`; the same object at every call of a process.

    Raises:
        InvalidInputError: unknown name.
        ModelNotFoundError: its weights are not on this machine; the error names the command that fetches them.
    """
    with _lock:
        if spec not in _loaded:
            _loaded[spec] = _load(spec)
        return _loaded[spec]


def resolve(embedder: str | Embedder) -> Embedder:
    """An embedder by name, or the one given, checked to be one.

    Raises:
        InvalidInputError: it lacks a part of the `Embedder` protocol, or has a name or fingerprint with white space.
        ModelNotFoundError: as `load_embedder`.
    """
    if isinstance(embedder, str):
        return load_embedder(embedder)
    parts = ("name", "dimensions", "fingerprint", "max_tokens", "count_tokens", "token_spans", "embed")
    missing = [part for part in parts if not hasattr(embedder, part)]
    if missing:
        raise InvalidInputError(
            f"{type(embedder).__name__} is not an embedder.",
            why=f"it has no {', '.join(missing)}",
            fix="See ttt_memory.Embedder, or name one: " + ", ".join(EMBEDDERS),
        )
    for value in (embedder.name, embedder.fingerprint):
        if not value or value.split() != [value]:
            raise InvalidInputError(f"An embedder's name and fingerprint must be one word each, not {value!r}.")
    return embedder


def is_remote(embedder: Embedder) -> bool:
    """Whether it waits for a network instead of computing here."""
    return bool(getattr(embedder, "remote", False))


def _load(spec: str) -> Embedder:
    match spec:
        case "minilm":
            from ttt_memory.notepad.embedders.minilm import MiniLM

            return MiniLM.load()
        case "hash":
            from ttt_memory.notepad.embedders.hashing import HashEmbedder

            return HashEmbedder()
    raise InvalidInputError(f"There is no embedder {spec!r}.", fix="Use 'minilm' or 'hash'.", embedder=spec)
