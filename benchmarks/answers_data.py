"""SQuAD 2 (developer half) as a memory meets it: articles to read, questions with and without an answer."""

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


def articles(file: Path) -> list[Article]:
    """The articles of a SQuAD 2 file, one a line."""
    found = []
    for number, line in enumerate(lzma.decompress(file.read_bytes()).decode().splitlines()):
        article: dict[str, Any] = json.loads(line)
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
