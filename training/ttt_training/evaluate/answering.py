"""Whether answering survives learning: SQuAD questions, their passage in the prompt, token F1 of what is written."""

from __future__ import annotations

import json
import lzma
import random
import re
import string
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.generate import Sampling, generate
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.state import FastWeights
from ttt_training.evaluate.bootstrap import paired
from ttt_training.evaluate.long_reading import LongReading
from ttt_training.evaluate.progress import Progress
from ttt_training.evaluate.subjects import Subject

INSTRUCTION = "Answer the question with a few words from the passage."
SAMPLING = Sampling(max_tokens=32, temperature=0.0, stop=("\n",))
CONDITIONS = ("base", "w0", "read")
SEED = 0
_ARTICLES = re.compile(r"\b(a|an|the)\b")


@dataclass(frozen=True)
class Question:
    """A question that its passage answers; `answers` are the accepted wordings."""

    name: str
    passage: str
    text: str
    answers: tuple[str, ...]


def questions(path: Path, count: int) -> list[Question]:
    """`count` answerable questions of a SQuAD 2 file (one article a line), drawn by a fixed seed.

    Raises:
        InvalidInputError: the file is missing, of another form, or has fewer.
    """
    try:
        raw = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
        every = [
            Question(str(qa["id"]), paragraph["context"], qa["question"], tuple(a["text"] for a in qa["answers"]))
            for line in raw.decode("utf-8").splitlines()
            for paragraph in json.loads(line)["paragraphs"]
            for qa in paragraph["qas"]
            if qa["answers"] and not qa.get("is_impossible")
        ]
    except (OSError, ValueError, KeyError, TypeError, lzma.LZMAError) as error:
        raise InvalidInputError(f"{path.name} is not a file of SQuAD articles.", why=repr(error)) from error
    if len(every) < count:
        raise InvalidInputError(f"{path.name} has {len(every)} answerable questions; {count} are needed.")
    return random.Random(SEED).sample(every, count)


def answering(
    base: LoadedModel,
    subject: Subject,
    asked: Sequence[Question],
    reading: LongReading,
    documents: int,
    progress: Progress,
) -> dict[str, Any]:
    """Asks every question of the base as shipped, under W0, and under the memory of `documents` documents of `reading`.

    Returns:
        Mean token F1 (percent) of `base`, `w0` and `read`, and the paired intervals of base - w0 and base - read.
    """
    model = subject.model
    states: dict[str, Callable[[], FastWeights | None]] = {
        "base": lambda: None,
        "w0": lambda: subject.state,
        "read": lambda: reading.after(documents),
    }
    scores: dict[str, list[float]] = {}
    for condition in CONDITIONS:
        for question in asked:

            def work(condition: str = condition, question: Question = question) -> dict[str, Any]:
                written = answer(base if condition == "base" else model, states[condition](), question)
                return {"written": written, "f1": 100 * max(token_f1(written, gold) for gold in question.answers)}

            count = documents if condition == "read" else 0
            key = {"measurement": "answering", "condition": condition, "question": question.name, **reading.key(count)}
            row = progress.once(key, f"{condition} {question.name}", 1.0, work)
            scores.setdefault(condition, []).append(row["f1"])
    means: dict[str, Any] = {condition: float(np.mean(values)) for condition, values in scores.items()}
    lost = {f"base - {name}": paired(np.subtract(scores["base"], scores[name])).to_dict() for name in CONDITIONS[1:]}
    return {"questions": len(asked), "f1": means, "intervals": lost}


def answer(model: LoadedModel, state: FastWeights | None, question: Question) -> str:
    """What the model writes, greedily, over the passage."""
    user = f"Passage: {question.passage}\n\nQuestion: {question.text}"
    prompt = model.tokenizer.chat([("system", INSTRUCTION), ("user", user)], generation_prompt=True)
    return "".join(generate(model, state, prompt, SAMPLING)).strip()


def token_f1(written: str, gold: str) -> float:
    """SQuAD's token F1: lower case, without punctuation and articles; 0 to 1."""
    said, wanted = _words(written), _words(gold)
    if not said or not wanted:
        return float(said == wanted)
    common = sum((Counter(said) & Counter(wanted)).values())
    return 2 * common / (len(said) + len(wanted))


def _words(text: str) -> list[str]:
    bare = "".join(c for c in text.lower() if c not in string.punctuation)
    return _ARTICLES.sub(" ", bare).split()
