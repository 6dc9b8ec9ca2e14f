"""The best of many candidates by their sentences, reading no text that cannot be among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from ttt_memory.ledger.records import PassageText
from ttt_memory.notepad.fusion import Shares, final, together

PAGE = 8
"""Passages read at a time."""
ROUNDING = 1e-9
"""Scores that differ by less are equal."""


class Texts(Protocol):
    """Where the passages' texts are."""

    def passages(self, ids: Sequence[int]) -> Sequence[PassageText]:
        """Some passages with their texts; those that are gone are left out."""


class Candidate(NamedTuple):
    """A passage that may be among the best.

    Attributes:
        fused: by meaning and words, 0 to 1.
        exact: share of the query's rare codes that it holds, by rarity, 0 to 1.
        coverage: share of the query's terms that it holds, by rarity, 0 to 1.
    """

    id: int
    fused: float
    exact: float
    coverage: float


@dataclass(frozen=True)
class Ranking:
    """The passages that may be the best, in order of id, by which shares, and how rare each term of the query is."""

    candidates: Sequence[Candidate]
    share: Shares
    rarity: Mapping[str, float]


def best(ranking: Ranking, limit: int, texts: Texts) -> list[tuple[float, PassageText]]:
    """Return at most `limit` candidates with their scores (`fusion.final`), best first; equal scores in order of id.

    A sentence holds no more of the query than its passage, which bounds the score before the text is read. So a passage
    that holds the query to the word is found, however unlike the query it is else.
    """
    share, terms = ranking.share, len(ranking.rarity)
    bounds = [(final(c.fused, c.coverage, c.exact, share, terms=terms), c) for c in ranking.candidates]
    bounds.sort(key=lambda bound: (-bound[0], bound[1].id))
    hits: list[tuple[float, PassageText]] = []
    for first in range(0, len(bounds), PAGE):
        if len(hits) == limit and hits[-1][0] > bounds[first][0] + ROUNDING:
            break
        page = {candidate.id: candidate for _, candidate in bounds[first : first + PAGE]}
        for passage in texts.passages(list(page)):  # another process may have removed some meanwhile
            candidate = page[passage.id]
            sentence = together(passage.text, ranking.rarity)
            hits.append((final(candidate.fused, sentence, candidate.exact, share, terms=terms), passage))
        hits = sorted(hits, key=lambda hit: (-hit[0], hit[1].id))[:limit]
    return hits
