"""Embedders of your own choice: `CompressedMemory.open(..., embedder=OpenAIEmbedder(...))`."""

from __future__ import annotations

from ttt_adapters.embedders.openai import OpenAIEmbedder
from ttt_adapters.embedders.sentence_transformers import SentenceTransformersEmbedder

__all__ = ["OpenAIEmbedder", "SentenceTransformersEmbedder"]
