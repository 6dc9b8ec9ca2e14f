"""Answers written by the local model, from quoted passages or from the fast weights alone."""

from __future__ import annotations

import math
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ttt_memory.model.fold import Segment, score
from ttt_memory.model.generate import Sampling, generate
from ttt_memory.types import Message, Passage, Prompt

if TYPE_CHECKING:
    from ttt_memory.model.loaded import LoadedModel
    from ttt_memory.model.state import FastWeights

OPEN_BOOK = "Answer the question in one or two sentences, from the notes alone. If they do not say, say so."
CLOSED_BOOK = "Answer the question in one or two sentences, from what you have read before."
DEFAULT_SAMPLING = Sampling(max_tokens=96, temperature=0.0, repetition_penalty=1.1)


def prompt(model: LoadedModel, question: str, passages: Sequence[Passage]) -> Prompt:
    """The messages for the local model: the passages that fit half the window, best first, then the question."""
    budget = (model.config.window or model.config.segment_tokens) // 2
    notes: list[str] = []
    for passage in passages:
        budget -= len(model.tokenizer.encode(passage.text))
        if budget < 0 and notes:
            break
        notes.append(passage.text.strip())
    user = question if not notes else "Notes:\n" + "\n---\n".join(notes) + f"\n\nQuestion: {question}"
    return Prompt(
        answerer=model.name,
        messages=(
            Message(role="system", content=OPEN_BOOK if notes else CLOSED_BOOK),
            Message(role="user", content=user),
        ),
        passages=tuple(passages[: len(notes)]),
    )


def prompt_tokens(model: LoadedModel, question: str, passages: Sequence[Passage]) -> np.ndarray:
    """Token ids of the prompt, up to where the model's turn begins."""
    messages = [(message.role, message.content) for message in prompt(model, question, passages).messages]
    return model.tokenizer.chat(messages, generation_prompt=True)


def answer(
    model: LoadedModel, weights: FastWeights | None, question: str, passages: Sequence[Passage], sampling: Sampling
) -> Generator[str, None, None]:
    """Stream an answer. A job for the compute lane: it yields after every token that completes a character.

    `weights=None` is the base model, its dynamic MLPs at identity.
    """
    yield from generate(model, weights, prompt_tokens(model, question, passages), sampling)


def likelihood(
    model: LoadedModel, weights: FastWeights | None, question: str, passages: Sequence[Passage], text: str
) -> Generator[None, None, float]:
    """Mean log-probability (nats per token, at most 0) of an answer's text. A job for the compute lane."""
    tokens = model.tokenizer.encode(text)
    if not len(tokens):
        return 0.0
    context = prompt_tokens(model, question, passages)
    losses = yield from score(model, weights, Segment(context=context, tokens=tokens))
    return -float(np.mean(losses))


def shares(with_both: float, without_weights: float, without_passages: float) -> tuple[float, float]:
    """(notepad, weights) shares of an answer: how much more likely each made it, given the other; (0, 0) if neither.

    Arguments are mean log-probabilities of the answer under: both memories, the passages alone, the weights alone.
    """
    notepad, weights = max(0.0, with_both - without_passages), max(0.0, with_both - without_weights)
    total = notepad + weights
    return (notepad / total, weights / total) if total > 0 and math.isfinite(total) else (0.0, 0.0)
