"""Sets of questions (developer halves) as a memory meets them: articles to read, questions with and without answers."""

from __future__ import annotations

import json
import lzma
import re
import string
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ttt_memory.notepad.sentences import sentences

MOST_OF_NQ = 500
"""Of 1,327: each costs a passage to embed."""


@dataclass(frozen=True)
class Asked:
    """A question of an article; without `golds` the article does not answer it."""

    id: str
    article: int
    text: str
    golds: tuple[str, ...]
    paragraph: int


@dataclass(frozen=True)
class Article:
    """What is read, and what is asked about it."""

    title: str
    paragraphs: tuple[str, ...]
    asked: tuple[Asked, ...]


def load(folder: Path) -> dict[str, list[Article]]:
    """The sets whose answers are spans of what is read, by name."""
    return {
        "squad2": _squad(_records(folder / "squad2-dev.jsonl.xz")),
        "nq-open": _nq(_records(folder / "nq-open-oracle-dev.jsonl.xz")),
        "hotpotqa": _hotpot(_records(folder / "hotpotqa-dev.jsonl.xz")),
        "musique": _musique(_records(folder / "musique-dev.jsonl.xz")),
    }


def _records(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lzma.decompress(file.read_bytes()).decode().splitlines()]


def _squad(records: list[dict[str, Any]]) -> list[Article]:
    found = []
    for number, article in enumerate(records):
        asked = [
            Asked(
                id=qa["id"],
                article=number,
                text=qa["question"],
                golds=() if qa["is_impossible"] else tuple(dict.fromkeys(a["text"] for a in qa["answers"])),
                paragraph=place,
            )
            for place, paragraph in enumerate(article["paragraphs"])
            for qa in paragraph["qas"]
        ]
        paragraphs = tuple(paragraph["context"] for paragraph in article["paragraphs"])
        found.append(Article(article["title"], paragraphs, tuple(asked)))
    return found


def _nq(records: list[dict[str, Any]]) -> list[Article]:
    """Each question beside the paragraph that answers it."""
    found = []
    for number, record in enumerate(records[:MOST_OF_NQ]):
        context = record["ctxs"][0]
        asked = Asked(f"nq-{number}", number, record["question"], tuple(dict.fromkeys(record["answers"])), 0)
        found.append(Article(context["title"], (f"{context['title']}\n{context['text']}",), (asked,)))
    return found


def _hotpot(records: list[dict[str, Any]]) -> list[Article]:
    """Each question among its paragraphs; those to be answered by yes or no have nothing to quote."""
    found = []
    for number, record in enumerate(records):
        paragraphs = tuple(f"{title}\n{''.join(lines)}" for title, lines in record["context"])
        asked = Asked(record["_id"], number, record["question"], (record["answer"],), 0)
        found.append(Article(record["_id"], paragraphs, () if record["answer"] in ("yes", "no") else (asked,)))
    return found


def _musique(records: list[dict[str, Any]]) -> list[Article]:
    found = []
    for number, record in enumerate(records):
        paragraphs = tuple(f"{p['title']}\n{p['paragraph_text']}" for p in record["paragraphs"])
        golds = tuple(dict.fromkeys((record["answer"], *record["answer_aliases"])))
        found.append(Article(record["id"], paragraphs, (Asked(record["id"], number, record["question"], golds, 0),)))
    return found


def holds(text: str, golds: tuple[str, ...]) -> bool:
    """Whether a text has one of the answers in it, articles, case and punctuation aside."""
    said = f" {normalised(text)} "
    return any(f" {normalised(gold)} " in said for gold in golds if normalised(gold))


def f1(text: str, golds: tuple[str, ...]) -> float:
    """SQuAD's token F1, against the best of the answers."""
    return max((_f1(normalised(text).split(), normalised(gold).split()) for gold in golds), default=0.0)


def normalised(text: str) -> str:
    """SQuAD's own normalisation: lower case, no punctuation, no articles."""
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def sentence_with(paragraph: str, gold: str) -> str:
    """The sentence of a paragraph that holds the answer; empty where it runs across two."""
    return next((s for s in plain_sentences(paragraph) if gold in s), "")


def plain_sentences(text: str) -> list[str]:
    """The sentences of a text."""
    return [text[start:end] for start, end, _ in sentences(text)]


def kind(gold: str) -> str:
    """What sort of answer it is, so that a wrong one of the same sort can be put in its place."""
    if any(c.isdigit() for c in gold):
        return "number"
    return "name" if gold[:1].isupper() else "phrase"


def _f1(said: list[str], gold: list[str]) -> float:
    common = sum((Counter(said) & Counter(gold)).values())
    if not common:
        return float(said == gold)
    precision, recall = common / len(said), common / len(gold)
    return 2 * precision * recall / (precision + recall)
