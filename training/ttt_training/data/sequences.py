"""Training sequences, cut exactly as the fold reads them, and the position in them that a run resumes from.

A source is a pure function from a number to a sequence, so that any rank, in any process, makes the same one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.fold import Segment, segments
from ttt_training.data.draws import Draws
from ttt_training.data.shards import Shards

Sequence = tuple[Segment, ...]
"""Segments in reading order; the fast weights are carried from one to the next."""


class SequenceSource(Protocol):
    """Sequences by number."""

    @property
    def identity(self) -> dict[str, Any]:
        """JSON-able description of everything that a sequence depends on."""

    @property
    def tokenizer(self) -> str:
        """Fingerprint of the tokenizer that made the ids."""

    def sequence(self, index: int) -> Sequence:
        """The sequence of this number, 0 or more; the numbers go on through the epochs."""


class Long:
    """One long document a sequence: pieces of `tokens` predicted tokens, none twice in an epoch.

    Documents shorter than that are left out. Where a document's first piece begins, and the order of all pieces, are
    drawn anew every epoch.

    Raises InvalidInputError if no document is long enough.
    """

    def __init__(self, shards: Shards, config: ModelConfig, *, tokens: int, seed: int = 0) -> None:
        self._shards, self._config, self._tokens, self._seed = shards, config, tokens, seed
        pieces = shards.lengths // tokens
        self._last = np.cumsum(pieces)
        if not len(pieces) or not self._last[-1]:
            raise InvalidInputError(
                f"No document of the training data has {tokens:,} tokens.",
                why=f"the longest has {int(shards.lengths.max()) if len(shards) else 0:,}",
                fix="Give longer documents or shorter sequences (--length).",
            )
        self._order = lru_cache(maxsize=2)(self._permutation)

    @property
    def epoch_length(self) -> int:
        """Sequences in an epoch."""
        return int(self._last[-1])

    @property
    def identity(self) -> dict[str, Any]:
        """See SequenceSource."""
        return {"long": [self._shards.key, self._tokens, self._seed, shape_of(self._config)]}

    @property
    def tokenizer(self) -> str:
        """See SequenceSource."""
        return self._shards.tokenizer

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return Draws(self._seed, 0, epoch).permutation(self.epoch_length)

    def sequence(self, index: int) -> Sequence:
        """See SequenceSource."""
        epoch, place = divmod(index, self.epoch_length)
        piece = int(self._order(epoch)[place])
        document = int(np.searchsorted(self._last, piece, side="right"))
        nth = piece - (int(self._last[document - 1]) if document else 0)
        ids = self._shards.document(document)
        spare = len(ids) % self._tokens
        first = Draws(self._seed, 1, epoch, document).below(spare + 1) + nth * self._tokens
        piece_ids = np.asarray(ids[first : first + self._tokens], np.int32)
        return tuple(segments(piece_ids, piece_ids[:0], self._config, append=False))


class Mixture:
    """`second` for the given share of the sequences, evenly spread, and `first` for the rest."""

    def __init__(self, first: SequenceSource, second: SequenceSource, share: float) -> None:
        if not 0.0 <= share <= 1.0:
            raise InvalidInputError(f"The mixture's share {share} is not between 0 and 1.")
        if first.tokenizer != second.tokenizer:
            raise InvalidInputError("The parts of the mixture were made with different tokenizers.")
        self._first, self._second, self._share = first, second, share

    @property
    def identity(self) -> dict[str, Any]:
        """See SequenceSource."""
        return {"share": self._share, "first": self._first.identity, "second": self._second.identity}

    @property
    def tokenizer(self) -> str:
        """See SequenceSource; both halves have the same."""
        return self._first.tokenizer

    def sequence(self, index: int) -> Sequence:
        """See SequenceSource."""
        before, after = int(index * self._share), int((index + 1) * self._share)
        return self._second.sequence(before) if after > before else self._first.sequence(index - before)


class Sequences(Iterator[Sequence]):
    """The endless iterator that a trainer takes: every `world`-th sequence of a source, with a position to resume from.

    Args:
        source: of sequences by number.
        rank, world: this process and how many there are; together they read every sequence once.
    """

    def __init__(self, source: SequenceSource, *, rank: int = 0, world: int = 1) -> None:
        if not 0 <= rank < world:
            raise InvalidInputError(f"Rank {rank} of {world} does not exist.")
        self._source, self._rank, self._world, self._next = source, rank, world, 0
        self.tokenizer = source.tokenizer
        self._identity = hashlib.sha256(json.dumps(source.identity, sort_keys=True).encode()).hexdigest()

    def __next__(self) -> Sequence:
        sequence = self._source.sequence(self._next + self._rank)
        self._next += self._world
        return sequence

    def state(self) -> dict[str, Any]:
        """JSON-able position: the number of sequences that all ranks together have taken."""
        return {"sequences": self._next, "source": self._identity}

    def seek(self, state: dict[str, Any]) -> None:
        """Goes on from `state`, also with another number of ranks.

        Raises InvalidInputError if the state belongs to other data, lengths, seed or model shape.
        """
        if state.get("source") != self._identity or not isinstance(state.get("sequences"), int):
            raise InvalidInputError(
                "This run cannot be resumed with other data or other sequences.",
                why="the checkpoint was written while reading a different source",
                fix="Resume with the same data, lengths and seed, or start in a new folder.",
            )
        self._next = state["sequences"]


def shape_of(config: ModelConfig) -> list[int]:
    """What of a model's configuration decides how documents are cut."""
    values = asdict(config)
    return [values[name] for name in ("segment_tokens", "context_tokens", "append_context_tokens")]
