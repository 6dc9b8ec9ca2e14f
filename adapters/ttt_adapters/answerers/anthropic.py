"""Anthropic's messages API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ttt_adapters.answerers.chat import ChatAnswerer, Piece
from ttt_adapters.endpoint import Endpoint
from ttt_memory import Prompt

VERSION = "2023-06-01"
"""Of the wire format."""


class AnthropicAnswerer(ChatAnswerer):
    """A model behind Anthropic's messages API as the answerer of `memory.ask`.

    Args:
        model: its name there.
        api_key: sent and never shown; None where a gateway at `base_url` adds it.
        base_url: of the API, without its version.
        timeout, max_tokens, passages, passage_tokens, retries, stream, instructions, options: as of `OpenAIAnswerer`.

    Raises:
        InvalidInputError: an argument that cannot be used.
        MissingExtraError: the extra `http` is not installed.
    """

    path = "v1/messages"

    def __init__(
        self,
        model: str,
        *,
        api_key: str | None = None,
        base_url: str = "https://api.anthropic.com",
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
                secrets={"x-api-key": api_key} if api_key else {},
                headers={"anthropic-version": VERSION},
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
            "system": "\n\n".join(m.content for m in prompt.messages if m.role == "system"),
            "messages": [m.model_dump() for m in prompt.messages if m.role != "system"],
            "max_tokens": self._max_tokens,
            "stream": self._stream,
        }

    def _piece(self, event: dict[str, Any]) -> Piece:
        match event["type"]:
            case "content_block_delta" if event["delta"]["type"] == "text_delta":
                return str(event["delta"]["text"]), False
            case "message":  # a whole reply, where the endpoint does not stream
                texts = [block["text"] for block in event["content"] if block["type"] == "text"]
                return "".join(texts), True
            case "message_stop":
                return "", True
        return "", False
