"""Loss by position: every name reads the same documents; the rest is arithmetic."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ttt_memory.errors import InvalidInputError
from ttt_training.data.normalise import NORMALISER_VERSION
from ttt_training.evaluate.books import Book
from ttt_training.evaluate.bootstrap import every_pair
from ttt_training.evaluate.progress import Progress
from ttt_training.evaluate.reading import losses
from ttt_training.evaluate.subjects import Subject

BIN = 1024
"""Tokens of a bin."""
EARLY = 4096
"""Tokens that `mean_after_4096` leaves out."""
_WRITING_COST = 1.9
"""A token that is also written costs so many that are only read."""


def compare(
    names: Mapping[str, Sequence[Subject]], texts: Sequence[Book], tokens: int, progress: Progress
) -> dict[str, Any]:
    """Reads the first `tokens` tokens of every text as every subject does.

    Args:
        names: subjects of each name; of several the one with the lowest mean loss over all texts counts.
        texts: each with at least `tokens` tokens.
        tokens: read of each.
        progress: keeps every (subject, text) once it is read.

    Returns:
        `results[name]`: `mean`, `mean_after_4096` (None for short texts), `bins` (mean loss of each 1,024 tokens) and
        the same for every document; `intervals[a][b]`: paired bootstrap of a - b over documents.

    Raises:
        InvalidInputError: a subject's mini-batches do not fit the bins.
    """
    for subject in (subject for group in names.values() for subject in group):
        size = subject.model.config.inner.mini_batch
        if subject.writes and (BIN % size or subject.model.config.segment_tokens % size):
            raise InvalidInputError(f"Mini-batches of {size} tokens do not fill bins of {BIN}.")
    rows: dict[str, list[list[dict[str, Any]]]] = {name: [[] for _ in group] for name, group in names.items()}
    for text in texts:
        for name, group in names.items():
            for subject, own in zip(group, rows[name], strict=True):
                own.append(_read(subject, text, tokens, progress))
    results = {name: _best(list(zip(group, rows[name], strict=True))) for name, group in names.items()}
    values = {name: _by_document(result["documents"]) for name, result in results.items()}
    return {"results": results, "intervals": every_pair(values) if len(texts) > 1 else {}}


def cost(names: Mapping[str, Sequence[Subject]], documents: int, tokens: int) -> float:
    """What `compare` costs, in tokens read without writing."""
    return sum(documents * _cost(subject, tokens) for group in names.values() for subject in group)


def _cost(subject: Subject, tokens: int) -> float:
    return tokens * (_WRITING_COST if subject.writes else 1.0)


def _read(subject: Subject, text: Book, tokens: int, progress: Progress) -> dict[str, Any]:
    key = {
        "measurement": "compare",
        "name": subject.name,
        "text": text.name,
        "tokens": tokens,
        "normaliser": NORMALISER_VERSION,
        **subject.identity,
    }
    label = f"{text.name} {subject.name}" + (f" at rate {subject.rate:g}" if subject.rate is not None else "")
    return progress.once(
        key,
        label,
        _cost(subject, tokens),
        lambda: {"document": text.name} | binned(losses(subject, text.tokens[:tokens])),
    )


def binned(nats: np.ndarray) -> dict[str, Any]:
    """`mean`, `mean_after_4096` and `bins` of losses [T] of one document."""
    nats = np.asarray(nats, np.float64)
    late = nats[EARLY:]
    return {
        "mean": float(nats.mean()),
        "mean_after_4096": float(late.mean()) if len(late) else None,
        "bins": [float(nats[first : first + BIN].mean()) for first in range(0, len(nats), BIN)],
    }


def _best(candidates: Sequence[tuple[Subject, list[dict[str, Any]]]]) -> dict[str, Any]:
    """The result of the subject with the lowest mean, and what the others had."""
    means = [float(np.mean([row["mean"] for row in rows])) for _, rows in candidates]
    subject, rows = candidates[int(np.argmin(means))]
    late = [row["mean_after_4096"] for row in rows]
    result: dict[str, Any] = {
        "about": subject.about,
        "mean": min(means),
        "mean_after_4096": None if None in late else float(np.mean(late)),
        "bins": np.mean([row["bins"] for row in rows], axis=0).tolist(),
        "documents": rows,
    }
    if subject.rate is not None:
        result["rate"] = subject.rate
    if len(candidates) > 1:
        result["tried"] = {one.about: mean for (one, _), mean in zip(candidates, means, strict=True)}
    return result


def _by_document(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[float]]:
    measures = [measure for measure in ("mean", "mean_after_4096") if rows[0][measure] is not None]
    return {measure: [row[measure] for row in rows] for measure in measures}
