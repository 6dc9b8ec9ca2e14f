"""Late interaction: a passage is as near to a query as, on average, its nearest word is to each of the query's words.

    score(q, p) = mean over the words i of q, by their rarity, of max over the words j of p of cos(q_i, p_j)

(Khattab and Zaharia, ColBERT, 2020; here over the sentence embedder's own token states, weighted by idf.) A passage's
vectors are stored as bytes: the version, then a signed byte a component. They are read for a query's candidates only,
never all at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad.terms import STOP_WORDS

if TYPE_CHECKING:
    from ttt_memory.notepad.embedders import Embedder

VERSION = 1
"""First byte of what is stored; bytes of another version are passed over."""
_SCALE = 254.0
"""Components of a unit vector beyond half are clipped: of 128 hardly any is."""
_PIECES = frozenset(("d", "ll", "m", "re", "s", "t", "ve"))

Vectors = NDArray[np.float32]


class Words(NamedTuple):
    """Words of a text, or parts of them: as they are written, in small letters, and unit vectors [W, D]."""

    pieces: Sequence[str]
    vectors: Vectors


class Tokens(NamedTuple):
    """Tokens of a text: `(start, end)` in its characters, and unit vectors [T, D]."""

    spans: Sequence[tuple[int, int]]
    vectors: Vectors


def embed(embedder: Embedder, texts: Sequence[str]) -> tuple[Vectors, list[Words] | None]:
    """Return the vectors of texts, [N, D], and their words; None for those where the embedder has none.

    Words are tokens with a letter or digit that are no stop words; all tokens where there is no other.
    """
    read = getattr(embedder, "embed_tokens", None)
    if read is None:
        return embedder.embed(texts), None
    vectors, tokens = read(texts)
    return vectors, [_words(text, found) for text, found in zip(texts, tokens, strict=True)]


def _words(text: str, tokens: Tokens) -> Words:
    pieces = [text[start:end].casefold() for start, end in tokens.spans]
    kept = [any(map(str.isalnum, piece)) and piece not in STOP_WORDS and piece not in _PIECES for piece in pieces]
    if not any(kept):
        return Words(pieces, tokens.vectors)
    return Words([piece for piece, keep in zip(pieces, kept, strict=True) if keep], tokens.vectors[kept])


def pack(vectors: Vectors) -> bytes:
    """Return unit vectors [T, D] as they are stored: 1 + T * D bytes."""
    components: bytes = np.clip(np.rint(vectors * _SCALE), -127, 127).astype(np.int8).tobytes()
    return bytes([VERSION]) + components


def unpack(data: bytes, count: int) -> Vectors:
    """Return the vectors [count, D] that `pack` was given, about."""
    return np.frombuffer(data, np.int8, offset=1).reshape(count, -1).astype(np.float32) / _SCALE


def nearest(query: Vectors, stored: Sequence[bytes | None]) -> Vectors:
    """Return the cosine of each word of a query with its nearest word in each passage, [Q, C].

    Args:
        query: vectors of its words, [Q, D].
        stored: what `pack` gave for each passage. Where there is nothing, the result is nan.
    """
    result = np.full((len(query), len(stored)), np.nan, np.float32)
    found = [(n, data) for n, data in enumerate(stored) if data and data[0] == VERSION and len(data) > 1]
    if found and len(query):
        parts = [np.frombuffer(data, np.int8, offset=1).reshape(-1, query.shape[1]) for _, data in found]
        words = np.concatenate(parts).astype(np.float32)
        starts = np.cumsum([0, *map(len, parts[:-1])])
        result[:, [n for n, _ in found]] = np.maximum.reduceat(query @ words.T, starts, axis=1) / _SCALE
    return result


def similarity(nearest: Vectors, weights: Sequence[float]) -> NDArray[np.float64]:
    """Return the late interaction of a query with each passage, [C]; nan where nothing is known of a passage.

    Args:
        nearest: from `nearest`, [Q, C].
        weights: of each word, [Q]; at least one above 0.
    """
    if not len(nearest):
        return np.full(nearest.shape[1], np.nan)
    return np.asarray(np.average(nearest, axis=0, weights=weights), np.float64)
