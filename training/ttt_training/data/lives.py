"""Memory-shaped sequences: several documents and streams, read in turns, as a memory meets them in its life."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.fold import Segment, segments
from ttt_training.data.draws import Draws
from ttt_training.data.sequences import Sequence, shape_of
from ttt_training.data.shards import Shards

_LIVES = 2  # name of the draws; sequences.py has the others
_NEAR = 512  # tokens within which a source's start is moved to the next line


@dataclass(frozen=True)
class Life:
    """What a memory meets in one sequence.

    Attributes:
        tokens: predicted tokens in all.
        documents: source documents, at most; their parts alternate, each going on where its last one ended.
        streams: chance that a source is a stream of appends and not a row of documents.
        part: predicted tokens of a document's part, from and to, log-uniform.
        append: the same of an append; like a part it ends with a line where one ends in its second half.
        burst: appends to one stream before another source has its turn, at most.
    """

    tokens: int
    documents: int = 4
    streams: float = 0.5
    part: tuple[int, int] = (128, 4096)
    append: tuple[int, int] = (24, 768)
    burst: int = 12

    def __post_init__(self) -> None:
        ranges = all(1 <= low <= high for low, high in (self.part, self.append))
        if self.tokens < 1 or self.documents < 1 or self.burst < 1 or not ranges or not 0 <= self.streams <= 1:
            raise InvalidInputError("These settings describe no memory-shaped sequence.", why=repr(self))


class Lives:
    """Sequences of `life.tokens` predicted tokens, in which short documents and appends to streams take turns.

    A part of a document is a document of its own (no context); an append is read after its stream's last tokens, as the
    fold does it; tails are written with scaled rates. What one part teaches can help the next part of the same source,
    with other texts between: that is what the fast weights are for.
    """

    def __init__(self, shards: Shards, config: ModelConfig, life: Life, *, seed: int = 0) -> None:
        self._shards, self._config, self._life, self._seed = shards, config, life, seed
        self._until = np.cumsum(shards.lengths)
        if not len(shards):
            raise InvalidInputError("The training data holds no document.")

    @property
    def identity(self) -> dict[str, Any]:
        """See SequenceSource."""
        return {"lives": [self._shards.key, self._seed, asdict(self._life), shape_of(self._config)]}

    @property
    def tokenizer(self) -> str:
        """See SequenceSource."""
        return self._shards.tokenizer

    def sequence(self, index: int) -> Sequence:
        """See SequenceSource."""
        draws, life = Draws(self._seed, _LIVES, index), self._life
        texts = [self._text(draws) for _ in range(1 + draws.below(life.documents))]
        read, out, turn = 0, [], 0
        while read < life.tokens:
            text = texts[turn]
            for piece in text.turn(draws, life.tokens - read):
                out.append(piece)
                read += len(piece.tokens)
            if text.finished:
                texts[turn] = self._text(draws)
            turn = (turn + 1 + draws.below(max(1, len(texts) - 1))) % len(texts)
        return tuple(out)

    def _text(self, draws: Draws) -> _Text:
        """A source from a random place of a random document, long ones more often."""
        place = draws.below(int(self._until[-1]))
        document = int(np.searchsorted(self._until, place, side="right"))
        ids = self._shards.document(document)
        # Not nearer to the end than one part, so that most sources have something to come back to.
        first = min(place - int(self._until[document] - len(ids)), max(0, len(ids) - self._life.part[1]))
        ahead = np.flatnonzero(np.isin(ids[first : first + _NEAR], self._shards.line_ends))
        first += int(ahead[0]) + 1 if ahead.size and first else 0
        kind = _Stream if draws.uniform() < self._life.streams else _Pieces
        return kind(ids, first, self._config, self._life, self._shards.line_ends)


class _Text:
    """One source of a sequence and how far it was read."""

    def __init__(
        self, ids: NDArray[Any], first: int, config: ModelConfig, life: Life, line_ends: NDArray[np.int64]
    ) -> None:
        self._ids, self._first, self._next = ids, first, first
        self._config, self._life, self._line_ends = config, life, line_ends

    @property
    def finished(self) -> bool:
        return self._next >= len(self._ids)

    def turn(self, draws: Draws, room: int) -> list[Segment]:
        """Segments of at most `room` predicted tokens in all, at least one token."""
        raise NotImplementedError

    def _take(self, count: int, *, to_line_end: bool) -> NDArray[np.int32]:
        taken = np.asarray(self._ids[self._next : self._next + count], np.int32)
        if to_line_end and (ends := np.flatnonzero(np.isin(taken[count // 2 :], self._line_ends))).size:
            taken = taken[: count // 2 + int(ends[-1]) + 1]
        self._next += len(taken)
        return taken


class _Pieces(_Text):
    """A row of documents."""

    def turn(self, draws: Draws, room: int) -> list[Segment]:
        taken = self._take(min(room, draws.log_uniform(*self._life.part)), to_line_end=True)
        return list(segments(taken, taken[:0], self._config, append=False))


class _Stream(_Text):
    """A conversation or log, appended to."""

    def turn(self, draws: Draws, room: int) -> list[Segment]:
        out: list[Segment] = []
        for _ in range(1 + draws.below(self._life.burst)):
            if room <= 0 or self.finished:
                break
            preceding = np.asarray(self._ids[self._first : self._next], np.int32)
            taken = self._take(min(room, draws.log_uniform(*self._life.append)), to_line_end=True)
            out += segments(taken, preceding, self._config, append=True)
            room -= len(taken)
        return out
