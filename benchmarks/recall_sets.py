"""The evaluation sets of the recall benchmark: texts with their evidence, as a user would put them into a memory.

Each set is a list of pools; a pool is one memory with its questions. A unit is what evidence is counted in: a turn of a
conversation, a paragraph, one dictionary of keys and values.
"""

from __future__ import annotations

import json
import lzma
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Unit:
    """A text that is evidence or not, and what a user knows of it."""

    key: str
    text: str
    stream: str | None = None
    sequence: int | None = None
    observed_at: datetime | None = None
    metadata: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Question:
    """What is asked. `evidence` are keys of units; where `quote` is set, the hit's text must hold it, too."""

    text: str
    evidence: frozenset[str]
    quote: str | None = None


@dataclass(frozen=True)
class Pool:
    """One memory and what it is asked."""

    name: str
    units: list[Unit]
    questions: list[Question]


def load(name: str, folder: Path) -> list[Pool]:
    """The pools of one set, from the folder of the evaluation files."""
    return list(SETS[name](_read(folder / f"{_FILES[name]}-dev.jsonl.xz")))


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with lzma.open(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            yield json.loads(line)


def _locomo(records: Iterator[dict[str, Any]]) -> Iterator[Pool]:
    """Two people's chats over months: a pool is a conversation, a stream is one of its sessions."""
    for record in records:
        talk, name = record["conversation"], record["sample_id"]
        units: list[Unit] = []
        for number in range(1, len(talk)):
            turns = talk.get(f"session_{number}", [])
            if not turns:
                continue
            began = datetime.strptime(talk[f"session_{number}_date_time"], "%I:%M %p on %d %B, %Y").replace(tzinfo=UTC)
            stream = f"{name}/session-{number}"
            units += [
                Unit(turn["dia_id"], turn["text"], stream, place, began, {"speaker": turn["speaker"]})
                for place, turn in enumerate(turns)
                if turn["text"].strip()
            ]
        keys = {unit.key for unit in units}
        asked = [
            Question(qa["question"], frozenset(evidence))
            for qa in record["qa"]
            if qa["category"] != _ADVERSARIAL and (evidence := set(_turns(qa["evidence"])) & keys)
        ]
        yield Pool(name, units, asked)


_ADVERSARIAL = 5


def _turns(evidence: list[str]) -> Iterator[str]:
    for entry in evidence:
        for session, turn in re.findall(r"D:?(\d+):0*(\d+)", entry):
            yield f"D{session}:{turn}"


def _beam(records: Iterator[dict[str, Any]]) -> Iterator[Pool]:
    """A user's long chat with an assistant: a pool and a stream is a chat; times are the user's own anchors."""
    for record in records:
        name, units = str(record["chat_id"]), list[Unit]()
        moment: datetime | None = None
        for batch in record["chat"]:
            for group in batch["turns"]:
                for turn in group:
                    anchor = turn.get("time_anchor") or batch.get("time_anchor")
                    moment = _anchor(anchor) or moment
                    if turn["content"].strip():
                        fields = {"role": turn["role"]}
                        units.append(Unit(str(turn["id"]), turn["content"], name, len(units), moment, fields))
        keys = {unit.key for unit in units}
        asked = [
            Question(probe["question"], frozenset(evidence))
            for kind in record["probing_questions"].values()
            for probe in kind
            if (evidence := {str(number) for number in _numbers(probe.get("source_chat_ids"))} & keys)
        ]
        yield Pool(name, units, asked)


def _anchor(text: Any) -> datetime | None:
    try:
        return datetime.strptime(text, "%B-%d-%Y").replace(tzinfo=UTC)
    except (TypeError, ValueError):
        return None


def _numbers(value: Any) -> Iterator[int]:
    if isinstance(value, bool):
        return
    if isinstance(value, int):
        yield value
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        yield from _numbers(item)


def _squad(records: Iterator[dict[str, Any]]) -> Iterator[Pool]:
    """Paragraphs of all articles in one pool; questions that have an answer."""
    units: list[Unit] = []
    asked: list[Question] = []
    for record in records:
        for place, paragraph in enumerate(record["paragraphs"]):
            key = f"{record['title']}/{place}"
            units.append(Unit(key, paragraph["context"]))
            asked += [Question(qa["question"], frozenset({key})) for qa in paragraph["qas"] if not qa["is_impossible"]]
    yield Pool("all", units, asked)


def _hotpot(records: Iterator[dict[str, Any]]) -> Iterator[Pool]:
    """Every paragraph of every question in one pool: evidence of one is a distractor of the others."""
    units: dict[str, Unit] = {}
    asked: list[Question] = []
    for record in records:
        keys = {}
        for title, sentences in record["context"]:
            text = f"{title}\n{''.join(sentences)}"
            keys[title] = units.setdefault(text, Unit(f"{title}/{len(units)}", text)).key
        evidence = {keys[title] for title, _ in record["supporting_facts"] if title in keys}
        asked.append(Question(record["question"], frozenset(evidence)))
    yield Pool("all", list(units.values()), asked)


def _musique(records: Iterator[dict[str, Any]]) -> Iterator[Pool]:
    """Every paragraph of every question in one pool."""
    units: dict[str, Unit] = {}
    asked: list[Question] = []
    for record in records:
        evidence = set()
        for paragraph in record["paragraphs"]:
            text = f"{paragraph['title']}\n{paragraph['paragraph_text']}"
            key = units.setdefault(text, Unit(f"{paragraph['title']}/{len(units)}", text)).key
            if paragraph["is_supporting"]:
                evidence.add(key)
        asked.append(Question(record["question"], frozenset(evidence)))
    yield Pool("all", list(units.values()), asked)


def _kv(records: Iterator[dict[str, Any]]) -> Iterator[Pool]:
    """Dictionaries of random keys and values, each one JSON document: the passage found must hold the value."""
    units: list[Unit] = []
    asked: list[Question] = []
    for number, record in enumerate(records):
        units.append(Unit(str(number), json.dumps(dict(record["ordered_kv_records"]), indent=1)))
        asked.append(Question(f'What is the value of "{record["key"]}"?', frozenset({str(number)}), record["value"]))
    yield Pool("all", units, asked)


SETS: dict[str, Callable[[Iterator[dict[str, Any]]], Iterator[Pool]]] = {
    "locomo": _locomo,
    "beam": _beam,
    "squad2": _squad,
    "hotpotqa": _hotpot,
    "musique": _musique,
    "kv": _kv,
}
_FILES = {
    "locomo": "locomo",
    "beam": "beam-100K",
    "squad2": "squad2",
    "hotpotqa": "hotpotqa",
    "musique": "musique",
    "kv": "kv-retrieval-75",
}
