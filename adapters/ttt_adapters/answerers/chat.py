"""What answerers behind chat endpoints have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from ttt_adapters.endpoint import Endpoint, parsed
from ttt_memory import Passage, Prompt
from ttt_memory.answerers.protocol import INSTRUCTIONS, numbered_notes
from ttt_memory.errors import InvalidInputError

Piece = tuple[str, bool]
"""Text of an event, and whether the model says that it is done."""


class ChatAnswerer(ABC):
    """An `Answerer` that sends numbered passages and a question to a chat endpoint, and streams the reply."""

    path: str
    """Of the endpoint, behind its base_url."""

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        *,
        max_tokens: int,
        passages: int,
        passage_tokens: int,
        stream: bool,
        instructions: str,
        options: Mapping[str, Any] | None,
    ) -> None:
        if not model:
            raise InvalidInputError("The model has no name.")
        if min(max_tokens, passages, passage_tokens) < 1:
            raise InvalidInputError("max_tokens, passages and passage_tokens must be at least 1.")
        self.model, self.passages = model, passages
        self._endpoint, self._stream = endpoint, stream
        self._max_tokens, self._passage_tokens = max_tokens, passage_tokens
        self._instructions, self._options = instructions or INSTRUCTIONS, dict(options or {})

    @property
    def name(self) -> str:
        """The model's name."""
        return self.model

    def __repr__(self) -> str:
        return f"{type(self).__name__}(base_url={self._endpoint.base_url!r}, model={self.model!r})"

    def close(self) -> None:
        """Close idle connections."""
        self._endpoint.close()

    def prompt(self, question: str, passages: Sequence[Passage]) -> Prompt:
        """The messages, with as many passages as fit `passage_tokens` (about)."""
        return numbered_notes(
            self.name, question, passages, budget=self._passage_tokens, instructions=self._instructions
        )

    def answer(self, prompt: Prompt) -> Iterator[str]:
        """Pieces of the answer as they come. Raises EndpointError."""
        body = {key: value for key, value in {**self._body(prompt), **self._options}.items() if value is not None}
        written = done = False
        for event in self._endpoint.events(self.path, body):
            if event is None:
                done = True
                continue
            if event.get("error"):
                raise self._endpoint.failed(event)
            text, finished = parsed(self._endpoint, partial(self._piece, event))
            done = done or finished
            if text:
                written = True
                yield text
        if not done:
            raise self._endpoint.broken_off()
        if not written:
            raise self._endpoint.malformed("there is no text in it")

    @abstractmethod
    def _body(self, prompt: Prompt) -> dict[str, Any]:
        """The request, before `options`."""

    @abstractmethod
    def _piece(self, event: dict[str, Any]) -> Piece:
        """What an event, or a whole reply, adds. May raise LookupError or TypeError where it has another shape."""
