"""Does the check of claims let true ones pass and stop wrong ones? Claims made from SQuAD's questions and answers."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from answers_data import Article, Asked, kind, plain_sentences, sentence_with
from answers_fit import calibration

from ttt_memory import CompressedMemory
from ttt_memory.answerers.calibration import CLAIM, SUPPORTED_AT
from ttt_memory.answerers.support import measure

SAMPLE = 300
LIMIT = 8
TRUE = ("answer", "sentence")
NOT_TRUE = ("answer of another article", "sentence with another answer", "sentence of another article")


def claims(read: Sequence[Article], memory: CompressedMemory, embedder: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Rates of each sort of claim that is found supported, and the fit of the score.

    True: the answer alone (judged together with its question), and the sentence that holds it. Not true: an answer of
    the same sort (number, name, phrase) from another article; the sentence with that answer in place of its own; a
    sentence of another article. Only questions whose passages were found are used.
    """
    draw = random.Random(1)
    asked = [q for article in read for q in article.asked if q.golds]
    by_kind: dict[tuple[str, int], list[str]] = defaultdict(list)
    for q in asked:
        by_kind[kind(q.golds[0]), q.article].append(q.golds[0])
    rows: list[tuple[str, int, Any]] = []
    for q in draw.sample(asked, min(SAMPLE, len(asked))):
        hits = memory.search(q.text, limit=LIMIT)
        sentence = sentence_with(read[q.article].paragraphs[q.paragraph], q.golds[0])
        if not sentence or not any(sentence in hit.text for hit in hits):
            continue
        for sort, text in _made(q, sentence, read, by_kind, draw).items():
            measured = measure(q.text, text, hits, embedder)
            if len(measured) == 1 and measured[0].places:
                rows.append((sort, q.article, measured[0]))
    best = [max(m.places, key=lambda near: near.overlap + near.similarity) for _, _, m in rows]
    # Names and numbers that stand nowhere decide by themselves; the score is for the others.
    open_ = [n for n, (_, _, m) in enumerate(rows) if not m.missing]
    fitted = calibration(
        [best[n]._asdict() for n in open_],
        list(CLAIM.weights),
        [rows[n][0] in TRUE for n in open_],
        [1.0] * len(open_),
        [rows[n][1] for n in open_],
        [(best[n].overlap + best[n].similarity) / 2 for n in open_],
    )
    scores = np.array([0.0 if m.missing else CLAIM(near._asdict()) for (_, _, m), near in zip(rows, best, strict=True)])
    sorts = np.array([sort for sort, _, _ in rows])
    at = {}
    for threshold in sorted({SUPPORTED_AT, *np.arange(0.1, 1.0, 0.1).round(1).tolist()}):
        at[f"{threshold:g}"] = {
            sort: round(float(np.mean(scores[sorts == sort] >= threshold)), 4) for sort in (*TRUE, *NOT_TRUE)
        }
    return {
        "claims": {sort: int((sorts == sort).sum()) for sort in (*TRUE, *NOT_TRUE)},
        "supported_at": SUPPORTED_AT,
        "supported": at[f"{SUPPORTED_AT:g}"],
        "supported_by_threshold": at,
    }, fitted


def _made(
    q: Asked,
    sentence: str,
    read: Sequence[Article],
    by_kind: dict[tuple[str, int], list[str]],
    draw: random.Random,
) -> dict[str, str]:
    gold = q.golds[0]
    other = draw.choice([number for number in range(len(read)) if number != q.article])
    made = {"answer": f"{gold}.", "sentence": sentence}
    if wrong := [text for text in by_kind[kind(gold), other] if text != gold]:
        instead = draw.choice(wrong)
        made["answer of another article"] = f"{instead}."
        made["sentence with another answer"] = sentence.replace(gold, instead)
    foreign = [s for s in plain_sentences(draw.choice(read[other].paragraphs)) if len(s.split()) > 5]
    if foreign:
        made["sentence of another article"] = draw.choice(foreign)
    return made
