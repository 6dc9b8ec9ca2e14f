"""Feature hashing of words and character trigrams: an embedder in microseconds, without weights."""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_TOKEN = re.compile(r"\w+|[^\w\s]")
_WORD = re.compile(r"\w+")
_DIMENSIONS = 256
_TRIGRAM_WEIGHT = 0.5


class HashEmbedder:
    """Counts of words and their trigrams, hashed with signs into 256 places. Finds shared words, not meanings."""

    name = "hash"
    dimensions = _DIMENSIONS
    fingerprint = "hash-256-v1"
    max_tokens = 254

    def count_tokens(self, text: str) -> int:
        """Words and single punctuation marks in `text`."""
        return len(_TOKEN.findall(text))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each word or punctuation mark, in characters."""
        return [match.span() for match in _TOKEN.finditer(text)]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """fp32 [N, 256], L2-normalised; zeros for a text without words. Deterministic on every platform."""
        vectors = np.zeros((len(texts), _DIMENSIONS), np.float32)
        for row, text in zip(vectors, texts, strict=True):
            words = _WORD.findall(text.casefold())[: self.max_tokens]
            if not words:
                continue
            places, weights = zip(*map(_features, words), strict=True)
            counts = np.bincount(np.concatenate(places), np.concatenate(weights), _DIMENSIONS)
            if norm := float(np.linalg.norm(counts)):
                row[:] = counts / norm
        return vectors


@lru_cache(maxsize=65_536)
def _features(word: str) -> tuple[np.ndarray, np.ndarray]:
    """Places and signed weights of a word and of its trigrams."""
    padded = f"#{word[:64]}#"
    features = [(f"w:{word}", 1.0)]
    features += [(padded[i : i + 3], _TRIGRAM_WEIGHT) for i in range(len(padded) - 2)]
    hashes = [zlib.crc32(text.encode("utf-8", "surrogatepass")) for text, _ in features]
    signs = np.array([1.0 if value >> 31 else -1.0 for value in hashes], np.float32)
    places = np.array([value % _DIMENSIONS for value in hashes], np.intp)
    return places, signs * np.array([weight for _, weight in features], np.float32)
