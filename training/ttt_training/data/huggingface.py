"""Hugging Face datasets as a source of documents, where the package `datasets` is installed."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ttt_memory.errors import InvalidInputError, MissingExtraError
from ttt_training.data.records import BadRecord, Report, Unusable, usable


class HuggingFaceDataset:
    """`hf:NAME[:SPLIT]` (default split "train"), or the folder of one split as `save_to_disk` writes it.

    `size` is in records. Raises MissingExtraError without `datasets`, InvalidInputError if the data cannot be loaded.
    """

    def __init__(self, spec: str) -> None:
        try:
            datasets: Any = importlib.import_module("datasets")
        except ImportError:
            raise MissingExtraError("datasets", extra="training", needed_for=f"Reading {spec}") from None
        try:
            if spec.startswith("hf:"):
                name, _, split = spec.removeprefix("hf:").partition(":")
                self._data: Any = datasets.load_dataset(name, split=split or "train")
            else:
                self._data = datasets.load_from_disk(spec)
        except Exception as error:
            raise InvalidInputError(f"Cannot load {spec}.", why=f"{type(error).__name__}: {error}") from error
        self.name = spec if spec.startswith("hf:") else Path(spec).name
        self.size = len(self._data)

    @property
    def identity(self) -> str:
        """Digest of the library's own fingerprint of the data."""
        return hashlib.sha256(str(self._data._fingerprint).encode()).hexdigest()

    def records(self, report: Report, field: str) -> Iterator[tuple[int, str]]:
        """See Source."""
        for done, record in enumerate(self._data, 1):
            text = usable(record.get(field), field)
            if isinstance(text, Unusable):
                report(BadRecord(f"{self.name}:{done}", text.why))
            else:
                yield done, text
