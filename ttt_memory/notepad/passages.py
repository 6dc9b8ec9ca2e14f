"""Cutting a text into passages: whole sentences, at most 200 words and 254 embedder tokens, exact offsets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ttt_memory.notepad.sentences import MAX_CHARACTERS, sentences

if TYPE_CHECKING:
    from ttt_memory.notepad.embedders import Embedder

MAX_WORDS = 200
MAX_TOKENS = 254
FULL_ENOUGH = 100
"""A passage of this many words ends at a paragraph's end, so that it keeps to one subject where that costs little."""


def cut(text: str, embedder: Embedder) -> list[tuple[int, int]]:
    """Return `(start, end)` of each passage, in order and without overlap.

    Every character that is not white space lies in exactly one passage. Deterministic; linear in the text's length.
    """
    limit = min(MAX_TOKENS, embedder.max_tokens)
    passages: list[tuple[int, int]] = []
    open_at: int | None = None
    closed_at = words = tokens = 0
    for start, end, words_here, tokens_here, paragraph in _units(text, embedder, limit):
        too_long = words + words_here > MAX_WORDS or tokens + tokens_here > limit
        too_wide = open_at is not None and end - open_at > MAX_CHARACTERS
        if open_at is not None and (too_long or too_wide or (paragraph and words >= FULL_ENOUGH)):
            passages.append((open_at, closed_at))
            open_at = None
        if open_at is None:
            open_at, words, tokens = start, 0, 0
        closed_at, words, tokens = end, words + words_here, tokens + tokens_here
    if open_at is not None:
        passages.append((open_at, closed_at))
    return passages


def _units(text: str, embedder: Embedder, limit: int) -> Iterator[tuple[int, int, int, int, bool]]:
    """Yield `(start, end, words, tokens, paragraph)` of sentences, those beyond a limit in pieces within it."""
    for start, end, paragraph in sentences(text):
        body = text[start:end]
        words, tokens = len(body.split()), embedder.count_tokens(body)
        if words <= MAX_WORDS and tokens <= limit:
            yield start, end, words, tokens, paragraph
            continue
        for left, right in _pieces(body, embedder, limit):
            piece = body[left:right]
            yield start + left, start + right, len(piece.split()), embedder.count_tokens(piece), paragraph and not left


def _pieces(body: str, embedder: Embedder, limit: int) -> Iterator[tuple[int, int]]:
    """Cut one long sentence after embedder tokens, at white space where there is any in the second half of a piece."""
    spans = embedder.token_spans(body)
    most = min(limit, MAX_WORDS)
    start = first = 0
    while first < len(spans):
        last = min(first + most, len(spans))
        if last < len(spans):
            last = next((i for i in range(last, first + most // 2, -1) if body[spans[i][0] - 1].isspace()), last)
        end = len(body) if last == len(spans) else spans[last][0]
        piece = body[start:end]
        if piece.strip():
            yield start + len(piece) - len(piece.lstrip()), start + len(piece.rstrip())
        start, first = end, last
    if body[start:].strip():
        yield start, len(body)
