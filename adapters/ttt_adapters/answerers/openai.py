"""Any endpoint that speaks OpenAI's chat completions: hosted ones, vLLM, llama.cpp's server, Ollama, LM Studio."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttt_adapters.answerers.chat import ChatAnswerer, Piece
from ttt_adapters.endpoint import Endpoint
from ttt_memory import Prompt


class OpenAIAnswerer(ChatAnswerer):
    """A model behind an OpenAI-compatible endpoint as the answerer of `memory.ask`.

    Args:
        base_url: of the API, up to its version: `http://localhost:11434/v1`.
        model: its name there.
        api_key: where the endpoint wants one. It is sent and never shown.
        timeout: seconds without a byte until an attempt is given up.
        max_tokens: of the answer.
        passages: how many to look for.
        passage_tokens: how many tokens of them to send, about; the best ones are sent.
        retries: attempts after the first, where the endpoint is busy, fails or cannot be reached. What it asks for with
            Retry-After is waited, up to a minute.
        stream: give pieces as they come.
        instructions: another system message.
        options: further fields of the request; None takes one away, as in
            `{"max_tokens": None, "max_completion_tokens": 500}`.

    Raises:
        InvalidInputError: an argument that cannot be used.
        MissingExtraError: the extra `http` is not installed.
    """

    path = "chat/completions"

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        timeout: float = 60.0,
        max_tokens: int = 512,
        passages: int = 12,
        passage_tokens: int = 3_000,
        retries: int = 3,
        stream: bool = True,
        instructions: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            Endpoint(
                base_url,
                secrets={"Authorization": f"Bearer {api_key}"} if api_key else {},
                headers={},
                timeout=timeout,
                retries=retries,
            ),
            model,
            max_tokens=max_tokens,
            passages=passages,
            passage_tokens=passage_tokens,
            stream=stream,
            instructions=instructions,
            options=options,
        )

    def _body(self, prompt: Prompt) -> dict[str, Any]:
        return {
            "model": self.model,
            "messages": [message.model_dump() for message in prompt.messages],
            "max_tokens": self._max_tokens,
            "temperature": 0,
            "stream": self._stream,
        }

    def _piece(self, event: dict[str, Any]) -> Piece:
        if not event["choices"]:  # the last event of some endpoints has nothing but usage
            return "", False
        choice = event["choices"][0]
        content = (choice.get("delta") or choice.get("message") or {}).get("content") or ""
        if not isinstance(content, str):
            raise TypeError(f"content is {type(content).__name__}")
        return content, choice.get("finish_reason") is not None or "message" in choice
