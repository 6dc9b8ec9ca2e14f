"""The second step of a search: what the best passages lead to.

"Where does the author of The Glass Harbour live?" names the book; only the passage about the book names its author, and
what is asked stands in a passage about him. So the first ranking's best passages, the leads, speak for passages that
are like them, that name whom they name, and that say what they leave open of the question.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from ttt_memory.notepad.dense import Vectors
from ttt_memory.notepad.lexical import Postings, idf
from ttt_memory.notepad.terms import STOP_WORDS, expand, tokens

LEADS = 5
READ_LEADS = 3
"""Of the leads so many are read for the names in them."""
NAMES = 16
"""Names taken from one lead, the first in its text: a passage's subject is named at its beginning."""
MOST_NAMING = 200
"""A name that more passages have leads nowhere, and would cost much to follow."""
SHARPNESS = 8.0
"""How much more a better lead counts: e to this, were it better by the whole range of scores."""
HALF_WAY = 0.5
"""How far the second search moves from the query towards the best passage."""

Scores = NDArray[np.float64]


def weigh(scores: Sequence[float]) -> Scores:
    """Return how much each lead counts by its score, best first: 1 in all."""
    raised = np.exp((np.asarray(scores) - max(scores)) * SHARPNESS)
    return np.asarray(raised / raised.sum())


def moved(query: Vectors, lead: Vectors) -> Vectors:
    """Return the query's vector, moved towards a lead's: a unit vector, [D]."""
    there = query + HALF_WAY * lead
    return np.asarray(there / max(float(np.linalg.norm(there)), 1e-9), np.float32)


def likeness(vectors: Vectors, leads: Vectors, weights: Scores) -> Scores:
    """Return the mean cosine of passages [C, D] with leads [L, D]: [C]."""
    alike = np.zeros(len(vectors))
    for lead, weight in zip(leads, weights.tolist(), strict=True):
        alike += weight * (vectors @ lead)
    return alike


def gain(nearest: NDArray[np.float32], lead: int, weights: Sequence[float]) -> Scores:
    """Return by how much passages say the words of a query that a lead leaves open: [C], 0 and above.

    Args:
        nearest: cosine of each word with its nearest in each passage, [Q, C]; nan where nothing is known of a passage.
        lead: place of the lead, 0 to C - 1.
        weights: of each word, [Q]; at least one above 0.
    """
    more = np.nan_to_num(np.maximum(nearest - nearest[:, lead : lead + 1], 0.0))
    return np.asarray(np.average(more, axis=0, weights=weights), np.float64)


def names(text: str, known: Collection[str]) -> list[str]:
    """Return the terms of the names and numbers in a lead, in order, that the query does not have; at most NAMES."""
    found: dict[str, None] = {}
    for token in tokens(text):
        if len(token) > 1 and _is_name(token) and (term := expand(token)[0]) not in known:
            found[term] = None
            if len(found) == NAMES:
                break
    return list(found)


def _is_name(token: str) -> bool:
    return (token[0].isupper() or any(map(str.isdigit, token))) and token.casefold() not in STOP_WORDS


def naming(found: Sequence[Sequence[str]], weights: Scores, postings: Postings, total: int) -> Scores:
    """Return which share of the names in the leads each passage has, by rarity and by how much each lead counts.

    Args:
        found: names in each lead that was read.
        weights: of these leads, and of others behind them.
        postings: of the names.
        total: number of passages, N.

    Returns:
        [N], 0 to 1. A name that the lead alone has leads nowhere and does not count.
    """
    held = np.zeros(total)
    for some, weight in zip(found, weights.tolist(), strict=False):
        rarity = _rarity(some, postings, total)
        whole = sum(rarity.values())
        for term, value in rarity.items():
            held[postings[term][0]] += weight * value / whole
    return held


def _rarity(some: Sequence[str], postings: Postings, total: int) -> Mapping[str, float]:
    return {t: idf(len(postings[t][0]), total) for t in some if t in postings and len(postings[t][0]) > 1}
