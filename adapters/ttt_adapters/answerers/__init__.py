"""Models behind endpoints as answerers: `memory.ask(question, answerer=OpenAIAnswerer(...))`.

They need the extra `http`.
"""

from __future__ import annotations

from ttt_adapters.answerers.anthropic import AnthropicAnswerer
from ttt_adapters.answerers.openai import OpenAIAnswerer

__all__ = ["AnthropicAnswerer", "OpenAIAnswerer"]
