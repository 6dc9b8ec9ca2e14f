"""The texts that are read: the first long enough documents of a file, normalised as for training, as token ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.loaded import Tokenizer
from ttt_training.data.normalise import normalise
from ttt_training.data.records import BadRecords
from ttt_training.data.sources import open_sources


@dataclass(frozen=True)
class Book:
    """One document.

    Attributes:
        name: file, number of the record from 1, and the first digits of the text's SHA-256.
        text: normalised.
        tokens: ids [N] int32 of the whole text.
    """

    name: str
    text: str
    tokens: np.ndarray


def books(path: Path, tokenizer: Tokenizer, *, documents: int, tokens: int, skip: int = 0) -> list[Book]:
    """The first `documents` texts of a file or folder that hold at least `tokens` tokens, after leaving out `skip`.

    Raises:
        InvalidInputError: there are fewer.
        InvalidDocumentError: a record without a text: an evaluation skips nothing.
        NotFoundError: no such file.
    """
    found: list[Book] = []
    (source,) = open_sources([path])
    for number, (_, raw) in enumerate(source.records(BadRecords(0), "text"), 1):
        text = normalise(raw)
        ids = tokenizer.encode(text)
        if len(ids) >= tokens:
            digest = hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]
            found.append(Book(f"{source.name}:{number}:{digest}", text, ids))
        if len(found) == skip + documents:
            return found[skip:]
    raise InvalidInputError(
        f"{source.name} has {len(found)} documents of {tokens} tokens or more; {skip + documents} are needed.",
        fix="Lower --documents or --tokens.",
    )
