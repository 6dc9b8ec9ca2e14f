"""From text to shards: once, interruptible, and never twice for the same text."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.loaded import Tokenizer
from ttt_training.data.normalise import NORMALISER_VERSION, normalise
from ttt_training.data.records import BadRecord, BadRecords, Report
from ttt_training.data.shards import INDEX, SHARD_FORMAT, Shards, dtype_for, open_shards
from ttt_training.data.sources import Source, open_sources

SHARD_TOKENS = 1 << 24
"""A shard is closed once it holds this many; at most so much work is lost by an interruption."""

Progress = Callable[[str, int, int, int], None]
"""Called after every document as `progress(source, done, size, tokens)`; done and size are of that source."""


def prepare(
    data: Iterable[str | Path],
    tokenizer: Tokenizer,
    folder: str | Path,
    *,
    field: str = "text",
    bad_records: int = 100,
    shard_tokens: int = SHARD_TOKENS,
    progress: Progress | None = None,
    report: Report | None = None,
) -> Shards:
    """The shards of `data` under `folder`, made now or found from an earlier call; a call that was cut goes on.

    Args:
        data: files, folders, `hf:NAME[:SPLIT]`; see `open_sources`.
        tokenizer: the model's.
        folder: parent of `shards-KEY`.
        field: name of the text in a JSON record.
        bad_records: how many are skipped before the run ends.
        shard_tokens: size of a shard.
        progress: see Progress.
        report: called with every bad record.

    Raises:
        InvalidDocumentError: too many bad records.
        InvalidInputError, NotFoundError: as `open_sources`; no document at all.
    """
    sources = open_sources(data)
    key = _key(sources, tokenizer, field, shard_tokens)
    target = Path(folder) / f"shards-{key[:12]}"
    if not (target / INDEX).is_file():
        target.mkdir(parents=True, exist_ok=True)
        _Writer(target, key, tokenizer, shard_tokens).write(sources, field, BadRecords(bad_records, report), progress)
    return open_shards(target)


def _key(sources: Sequence[Source], tokenizer: Tokenizer, field: str, shard_tokens: int) -> str:
    parts = [SHARD_FORMAT, NORMALISER_VERSION, tokenizer.fingerprint, field, shard_tokens]
    return hashlib.sha256(json.dumps([parts, [source.identity for source in sources]]).encode()).hexdigest()


class _Writer:
    """Writes one folder. Two processes that do so at once write the same bytes, each file by one rename."""

    def __init__(self, folder: Path, key: str, tokenizer: Tokenizer, shard_tokens: int) -> None:
        self._folder, self._key, self._tokenizer, self._limit = folder, key, tokenizer, shard_tokens
        self._dtype = dtype_for(tokenizer.vocab_size)
        self._done = self._finished_shards()
        self._pending: list[NDArray[Any]] = []
        self._waiting = 0  # tokens in `_pending`

    def _finished_shards(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        while (note := self._folder / f"{len(found):05d}.json").is_file():
            found.append(json.loads(note.read_text(encoding="utf-8")))
        return found

    def write(self, sources: Sequence[Source], field: str, bad: BadRecords, progress: Progress | None) -> None:
        skip_sources, skip_records = self._done[-1]["next"] if self._done else (0, 0)
        total = sum(shard["tokens"] for shard in self._done)
        for number, source in enumerate(sources):
            for count, (done, text) in enumerate(source.records(bad, field), 1):
                if (number, count) <= (skip_sources, skip_records):
                    continue
                ids = self._tokenizer.encode(normalise(text)).astype(self._dtype)
                if not len(ids):
                    bad(BadRecord(f"{source.name}, document {count}", "it has no tokens"))
                    continue
                self._pending.append(ids)
                self._waiting += len(ids)
                total += len(ids)
                if progress is not None:
                    progress(source.name, done, source.size, total)
                if self._waiting >= self._limit:
                    self._close((number, count))
        if self._pending:
            self._close((len(sources), 0))
        if not self._done:
            raise InvalidInputError("The training data holds no usable document.", why=_last(bad))
        self._finish(bad)

    def _close(self, following: tuple[int, int]) -> None:
        """Writes the pending documents as one shard; the note comes last and says that the others are whole."""
        name, ends = f"{len(self._done):05d}", np.cumsum([len(ids) for ids in self._pending], dtype="<u8")
        note = {"tokens": int(ends[-1]), "documents": len(ends), "next": following}
        _replace(self._folder / f"{name}.bin", np.concatenate(self._pending).tobytes())
        _replace(self._folder / f"{name}.ends", ends.tobytes())
        _replace(self._folder / f"{name}.json", json.dumps(note).encode())
        self._done.append(note)
        self._pending, self._waiting = [], 0

    def _finish(self, bad: BadRecords) -> None:
        vocabulary = range(self._tokenizer.vocab_size)
        index = {
            "format": SHARD_FORMAT,
            "key": self._key,
            "normaliser": NORMALISER_VERSION,
            "tokenizer": self._tokenizer.fingerprint,
            "vocab_size": self._tokenizer.vocab_size,
            "dtype": self._dtype.str,
            "line_ends": [i for i in vocabulary if self._tokenizer.decode_bytes([i]).endswith(b"\n")],
            "shards": self._done,
            "bad_records": [f"{record.where}: {record.why}" for record in bad.seen],
        }
        _replace(self._folder / INDEX, json.dumps(index).encode())


def _last(bad: BadRecords) -> str:
    return f"{bad.seen[-1].where}: {bad.seen[-1].why}" if bad.seen else "the files are empty"


def _replace(path: Path, content: bytes) -> None:
    """Writes a file durably, whole or not at all."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
