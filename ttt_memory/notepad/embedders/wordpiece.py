"""BERT's uncased WordPiece tokenizer with exact character offsets.

Equal to the reference tokenizer on text whose characters both Unicode versions know: control characters are dropped,
CJK characters stand alone, text is lower-cased and stripped of accents, then split at white space and punctuation, and
each word is cut into the longest known pieces from the left.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Mapping
from functools import lru_cache

from ttt_memory.errors import ModelFormatError

_UNKNOWN = "[UNK]"
_MAX_WORD = 100
_PLAIN_ASCII = re.compile(r"[\t\n\r -~]*")
_ASCII_WORD = re.compile(r"[a-z0-9]+|[!-/:-@\[-`{-~]")
_CJK = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B920, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
_CACHED_WORDS = 65_536

Token = tuple[int, int, int]
"""Id, and start and end in characters of the text."""


class WordPiece:
    """Text to (id, start, end). Immutable apart from a cache of words."""

    def __init__(self, vocabulary: Mapping[str, int]) -> None:
        self._ids = dict(vocabulary)
        self._unknown = self.id_of(_UNKNOWN)
        self._longest = max(map(len, self._ids))
        self._pieces = lru_cache(maxsize=_CACHED_WORDS)(self._cut)

    def id_of(self, token: str) -> int:
        """Id of a token that must be in the vocabulary. Raises ModelFormatError if it is not."""
        if (found := self._ids.get(token)) is None:
            raise ModelFormatError(f"The embedder's vocabulary has no {token}.")
        return found

    def tokenize(self, text: str) -> list[Token]:
        """Tokens of `text` in order. A piece that begins or ends inside a character's expansion spans all of it."""
        tokens: list[Token] = []
        if _PLAIN_ASCII.fullmatch(text):
            for match in _ASCII_WORD.finditer(text.lower()):
                start = match.start()
                tokens += [(i, start + a, start + b) for i, a, b in self._pieces(match.group())]
            return tokens
        for word, starts, ends in _words(text):
            tokens += [(i, starts[a], ends[b - 1]) for i, a, b in self._pieces(word)]
        return tokens

    def _cut(self, word: str) -> tuple[Token, ...]:
        """Longest known pieces from the left, offsets within the word; one unknown token if that fails."""
        if len(word) > _MAX_WORD:
            return ((self._unknown, 0, len(word)),)
        pieces: list[Token] = []
        start = 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                if (found := self._ids.get(prefix + word[start:end])) is not None:
                    break
            else:
                return ((self._unknown, 0, len(word)),)
            pieces.append((found, start, end))
            start = end
        return tuple(pieces)


def _words(text: str) -> Iterator[tuple[str, list[int], list[int]]]:
    """Normalised words with the span in `text` that each of their characters came from."""
    word: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for position, character in enumerate(text):
        for piece in _normalised(character):
            if piece != " " and not _is_punctuation(piece) and not _is_cjk(piece):
                word.append(piece)
                starts.append(position)
                ends.append(position + 1)
                continue
            if word:
                yield "".join(word), starts, ends
                word, starts, ends = [], [], []
            if piece != " ":
                yield piece, [position], [position + 1]
    if word:
        yield "".join(word), starts, ends


@lru_cache(maxsize=_CACHED_WORDS)
def _normalised(character: str) -> str:
    """What one character becomes: nothing, a space, or lower-case characters without accents."""
    if character in "\t\n\r":
        return " "
    if character in "\x00\ufffd" or unicodedata.category(character) in {"Cc", "Cf", "Co"}:
        return ""
    if character.isspace():
        return " "
    bare = (c for c in unicodedata.normalize("NFD", character) if unicodedata.category(c) != "Mn")
    return "".join(c.lower() for c in bare)


@lru_cache(maxsize=_CACHED_WORDS)
def _is_punctuation(character: str) -> bool:
    return character in "$+<=>^`|~" or unicodedata.category(character).startswith("P")


def _is_cjk(character: str) -> bool:
    code = ord(character)
    return code >= 0x3400 and any(first <= code <= last for first, last in _CJK)
