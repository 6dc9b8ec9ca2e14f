"""Byte-level BPE over a model's own vocabulary, run by tiktoken.

Three things differ from a plain `tiktoken.Encoding`:

- Strings that look like special tokens are data. Only `chat` emits special ids, around contents it encodes as data.
- A model may lack tokens for some bytes (SmolLM2 lacks 21). tiktoken stops the process on those, so they get ranks
  without ids. The original tokenizer drops them after cutting the text and before merging, so that their neighbours may
  merge; so text with such bytes is cut and merged in two steps here.
- Runs of more than `MAX_RUN` characters that the pre-tokenizer could not cut are cut here, which bounds the time of
  hostile input (the regex engine overflows on about a million spaces, merging is superlinear). Cuts depend on the text
  alone. Text without such runs gets exactly the original tokenizer's ids.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

import numpy as np
import regex
import tiktoken

from ttt_memory.errors import InvalidInputError, ModelFormatError

MAX_RUN = 8192
"""Longest run of characters of one class that is encoded whole."""

_NO_ID = -1
_LONG_RUN = re.compile(rf"(?<!\S)\S{{{MAX_RUN + 1},}}|(?<!\s)\s{{{MAX_RUN + 1},}}")
_SAFE_CUT = re.compile(r"(?<=[^\W_])(?=[\W_])|(?<=[A-Za-z])(?=\d)|(?<=\d)(?=[A-Za-z])")
"""Places inside a run without white space where every supported pre-tokenizer cuts too: where words and numbers end."""

ChatStyle = Literal["chatml", "llama3", "plain"]


@dataclass(frozen=True)
class Vocabulary:
    """What a tokenizer is made of, whichever file it came from.

    Attributes:
        pattern: pre-tokenizer regex of tiktoken.
        tokens: bytes of every mergeable token, in merge order (its place is its rank); all 256 single bytes are in it.
        ids: id of each of `tokens` in the model's embedding; -1 for bytes the model has no token for.
        special: control strings and their ids.
        vocab_size: rows of the model's embedding.
        stop: ids that end an answer.
        chat_style: template of conversations.
        default_system: system message that the template puts first where a conversation has none.
        nfc: whether text is NFC-normalised first.
    """

    pattern: str
    tokens: tuple[bytes, ...]
    ids: tuple[int, ...]
    special: Mapping[str, int]
    vocab_size: int
    stop: tuple[int, ...]
    chat_style: ChatStyle = "plain"
    default_system: str | None = None
    nfc: bool = False
    begin: int | None = field(default=None)

    def __post_init__(self) -> None:
        singles = {token for token in self.tokens if len(token) == 1}
        if len(singles) != 256 or len(set(self.tokens)) != len(self.tokens) or len(self.ids) != len(self.tokens):
            raise ModelFormatError("The tokenizer's vocabulary is not a byte-level BPE.")
        every = [*self.special.values(), *(i for i in self.ids if i != _NO_ID), *self.stop]
        if any(not 0 <= i < self.vocab_size for i in every):
            raise ModelFormatError(f"The tokenizer has ids outside the model's {self.vocab_size}.")

    def to_json(self) -> str:
        """Canonical JSON, the same for the same vocabulary."""
        values: dict[str, Any] = {name: getattr(self, name) for name in self.__dataclass_fields__}
        values["tokens"] = [b64encode(token).decode() for token in self.tokens]
        values["special"] = dict(self.special)
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Vocabulary:
        """Inverse of `to_json`. Raises ModelFormatError if the text is anything else."""
        try:
            stored = json.loads(text)
            stored["tokens"] = tuple(b64decode(token) for token in stored["tokens"])
            values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            return cls(**values)
        except (ValueError, TypeError, KeyError) as error:
            raise ModelFormatError("A stored tokenizer cannot be read.", why=str(error)) from error


class BytePairTokenizer:
    """Text to ids and back. Immutable; safe to use from several threads."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self.vocabulary = vocabulary
        self._encoding = tiktoken.Encoding(
            "ttt_memory",
            pat_str=vocabulary.pattern,
            mergeable_ranks={token: rank for rank, token in enumerate(vocabulary.tokens)},
            special_tokens={},
        )
        self._ids = np.array(vocabulary.ids, np.int32)
        pairs = list(zip(vocabulary.tokens, vocabulary.ids, strict=True))
        self._missing = b"".join(token for token, i in pairs if i == _NO_ID)
        self._bytes = {i: token for token, i in pairs}
        self._stop = frozenset(vocabulary.stop)

    @property
    def vocab_size(self) -> int:
        """Rows of the model's embedding; every id is below it."""
        return self.vocabulary.vocab_size

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end a generated answer."""
        return self._stop

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the vocabulary and of the rule for long runs."""
        return hashlib.sha256(f"bytepair-2;{MAX_RUN};{self.vocabulary.to_json()}".encode()).hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, int32 [n]. Nothing in the text is interpreted; bytes without a token are dropped.

        Raises InvalidInputError if the text holds lone surrogates, which no encoding can represent.
        """
        if self.vocabulary.nfc:
            text = unicodedata.normalize("NFC", text)
        try:
            ranks = [self._ranks(part) for part in _parts(text)]
        except UnicodeEncodeError as error:
            raise InvalidInputError(
                "The text holds lone surrogates and cannot be encoded.", why=str(error), fix="Decode it as UTF-8 first."
            ) from error
        ids: np.ndarray = self._ids[np.concatenate(ranks)] if ranks else np.empty(0, np.int32)
        return ids

    def _ranks(self, part: str) -> np.ndarray:
        """Ranks of a part of a text, none of them without an id."""
        data = part.encode()
        if not self._missing or len(data.translate(None, self._missing)) == len(data):
            return self._encoding.encode_to_numpy(part, disallowed_special=())
        words = (word.encode().translate(None, self._missing) for word in self._words.findall(part))
        ranks = [self._encoding._core_bpe.encode_single_piece(word) for word in words if word]
        return np.array([rank for word in ranks for rank in word], np.uint32)

    @cached_property
    def _words(self) -> regex.Pattern[str]:
        """The pre-tokenizer, with tiktoken's meaning of white space: `regex` counts U+001C to U+001F too."""
        pattern = self.vocabulary.pattern
        return regex.compile(pattern.replace(r"\s", r"\p{White_Space}").replace(r"\S", r"\P{White_Space}"))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of `ids`; control tokens and ids of no token give none."""
        return b"".join([self._bytes.get(int(i), b"") for i in ids])

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def chat(self, messages: Sequence[tuple[str, str]], *, generation_prompt: bool) -> np.ndarray:
        """Ids of a conversation in the model's template, int32 [n].

        Args:
            messages: (role, content) in order; roles as the template knows them (`system`, `user`, `assistant`).
            generation_prompt: end with the opening of the assistant's turn.
        """
        turns = list(messages)
        system = self.vocabulary.default_system
        if system is not None and (not turns or turns[0][0] != "system"):
            turns.insert(0, ("system", system))
        pieces = [np.array([self.vocabulary.begin], np.int32)] if self.vocabulary.begin is not None else []
        for role, content in turns:
            pieces += self._turn(role, content)
        if generation_prompt:
            pieces += self._turn("assistant", None)
        return np.concatenate(pieces) if pieces else np.empty(0, np.int32)

    def _turn(self, role: str, content: str | None) -> list[np.ndarray]:
        """One turn of the template; `content=None` leaves it open."""
        match self.vocabulary.chat_style:
            case "chatml":
                opening = [self._control("<|im_start|>"), self.encode(f"{role}\n{content or ''}")]
                closing = [self._control("<|im_end|>"), self.encode("\n")]
            case "llama3":
                header = [self._control("<|start_header_id|>"), self.encode(role), self._control("<|end_header_id|>")]
                opening = [*header, self.encode("\n\n" + (content or "").strip())]
                closing = [self._control("<|eot_id|>")]
            case "plain":
                said = "" if content is None else f" {content}"
                opening = [self.encode(f"{role.capitalize()}:{said}")]
                closing = [self.encode("\n")]
        return opening if content is None else opening + closing

    def _control(self, text: str) -> np.ndarray:
        return np.array([self.vocabulary.special[text]], np.int32)


def _parts(text: str) -> Iterator[str]:
    """`text`, cut only inside runs of more than MAX_RUN characters with, or without, white space."""
    begin = 0
    for run in _LONG_RUN.finditer(text):
        for cut in _cuts(text, run.start(), run.end()):
            yield text[begin:cut]
            begin = cut
    if begin < len(text):
        yield text[begin:]


def _cuts(text: str, start: int, end: int) -> Iterator[int]:
    """Places to cut one long run: the last harmless one within MAX_RUN, else after MAX_RUN characters."""
    spaces = text[start].isspace()
    while end - start > MAX_RUN:
        safe = None if spaces else _last_safe(text, start, start + MAX_RUN)
        start = safe if safe is not None else start + MAX_RUN
        yield start


def _last_safe(text: str, start: int, limit: int) -> int | None:
    position = None
    for match in _SAFE_CUT.finditer(text, start + 1, limit):
        position = match.start()
    return position
