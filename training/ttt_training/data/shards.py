"""Token shards: documents tokenised once, memory-mapped afterwards.

A folder `shards-KEY` holds `NNNNN.bin` (token ids one after another, uint16 or uint32, little-endian), `NNNNN.ends`
(uint64, where each document ends in it), `NNNNN.json` (what has been read so far) and, once all is done, `index.json`.
No document crosses shards. KEY hashes everything that the bytes depend on, so a second call finds the first one's work.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_memory.errors import CorruptionError, ModelMismatchError, NotFoundError
from ttt_memory.model.loaded import Tokenizer

SHARD_FORMAT = 1
INDEX = "index.json"


@dataclass(frozen=True)
class Shards:
    """Tokenised documents. Open one with `open_shards`, make one with `ttt_training.data.tokenise.prepare`.

    Attributes:
        folder: where they are.
        key: hex digest of what the bytes depend on: sources, normaliser, tokenizer.
        tokenizer: fingerprint of the tokenizer.
        vocab_size: ids are below it.
        line_ends: ids whose text ends with a line break, ascending.
        lengths: tokens of every document, int64 [D].
        bad_records: what was skipped, "file:line: why".
    """

    folder: Path
    key: str
    tokenizer: str
    vocab_size: int
    line_ends: NDArray[np.int64]
    lengths: NDArray[np.int64]
    bad_records: tuple[str, ...]
    _files: tuple[NDArray[Any], ...]
    _ends: tuple[NDArray[np.uint64], ...]

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def tokens(self) -> int:
        """Tokens in all."""
        return int(self.lengths.sum())

    @cached_property
    def _first(self) -> NDArray[np.int64]:
        """Index of each shard's first document, and the number of documents."""
        return np.concatenate(([0], np.cumsum([len(ends) for ends in self._ends]))).astype(np.int64)

    def document(self, index: int) -> NDArray[Any]:
        """Token ids of one document, without a start token: a read-only view of the file."""
        if not 0 <= index < len(self):
            raise NotFoundError(f"There is no document {index}; the shards hold {len(self)}.")
        shard = int(np.searchsorted(self._first, index, side="right")) - 1
        place = index - int(self._first[shard])
        ends = self._ends[shard]
        first = int(ends[place - 1]) if place else 0
        return self._files[shard][first : int(ends[place])]

    def require(self, tokenizer: Tokenizer) -> None:
        """Raises ModelMismatchError unless these ids were made by `tokenizer`."""
        if tokenizer.fingerprint != self.tokenizer:
            raise ModelMismatchError(
                "The shards were made with another tokenizer than the model's.",
                why=f"tokenizer {self.tokenizer[:12]} is not {tokenizer.fingerprint[:12]}",
                fix="Give the text files instead; they are tokenised again beside these shards.",
                folder=str(self.folder),
            )


def dtype_for(vocab_size: int) -> np.dtype[Any]:
    """The smallest type that holds every id."""
    return np.dtype("<u2" if vocab_size <= 1 << 16 else "<u4")


def open_shards(folder: str | Path) -> Shards:
    """Finished shards of a folder.

    Raises NotFoundError if there are none, CorruptionError if a file has another size than was written.
    """
    folder = Path(folder)
    try:
        index = json.loads((folder / INDEX).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise NotFoundError(
            f"There are no finished shards in {str(folder)!r}.", fix="Make them: python -m ttt_training shards"
        ) from None
    except ValueError as error:
        raise CorruptionError(f"The index of the shards in {str(folder)!r} cannot be read.", why=str(error)) from error
    files, every = [], []
    for number, shard in enumerate(index["shards"]):
        files.append(_mapped(folder / f"{number:05d}.bin", np.dtype(index["dtype"]), shard["tokens"]))
        every.append(_mapped(folder / f"{number:05d}.ends", np.dtype("<u8"), shard["documents"]))
    lengths = [np.diff(ends.astype(np.int64), prepend=0) for ends in every]
    return Shards(
        folder=folder,
        key=index["key"],
        tokenizer=index["tokenizer"],
        vocab_size=index["vocab_size"],
        line_ends=np.array(index["line_ends"], np.int64),
        lengths=np.concatenate(lengths) if lengths else np.zeros(0, np.int64),
        bad_records=tuple(index["bad_records"]),
        _files=tuple(files),
        _ends=tuple(every),
    )


def _mapped(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    size = path.stat().st_size if path.is_file() else -1
    if size != count * dtype.itemsize:
        raise CorruptionError(
            f"The shard {path.name} is damaged.",
            why="it is missing" if size < 0 else f"{size} bytes, not {count * dtype.itemsize}",
            fix="Remove its folder; it is made again from the text.",
            path=str(path),
        )
    return np.memmap(path, dtype, mode="r", shape=(count,)) if count else np.zeros(0, dtype)
