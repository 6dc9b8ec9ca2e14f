"""Any endpoint that speaks OpenAI's embeddings."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_adapters.embedders import pieces
from ttt_adapters.endpoint import Endpoint, parsed
from ttt_memory.errors import InvalidInputError

BATCH = 64
"""Texts in one request."""


class OpenAIEmbedder:
    """A model behind an OpenAI-compatible endpoint as the embedder of a memory. Passages and queries are sent to it.

    The memory remembers model and dimensions, not the address: the same model may move to another host. Vectors are
    brought to unit length. Token counts are estimates on the careful side.

    Args:
        base_url: of the API, up to its version: `http://localhost:11434/v1`.
        model: its name there.
        api_key: where the endpoint wants one. It is sent and never shown.
        dimensions: length of its vectors; None asks the endpoint for one vector, once.
        shorten: ask for vectors of `dimensions`, of models that can give shorter ones.
        timeout, retries: as of `OpenAIAnswerer`.

    Raises:
        InvalidInputError: an argument that cannot be used.
        MissingExtraError: the extra `http` is not installed.
    """

    remote = True
    max_tokens = 254

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        dimensions: int | None = None,
        shorten: bool = False,
        timeout: float = 60.0,
        retries: int = 3,
    ) -> None:
        if not model or model.split() != [model]:
            raise InvalidInputError("The model's name must be one word.")
        if (dimensions is not None and dimensions < 1) or (shorten and dimensions is None):
            raise InvalidInputError("dimensions must be at least 1, and given where shorten=True.")
        self.model = model
        secrets = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._endpoint = Endpoint(base_url, secrets=secrets, headers={}, timeout=timeout, retries=retries)
        self._dimensions, self._shorten = dimensions, shorten
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"OpenAIEmbedder(base_url={self._endpoint.base_url!r}, model={self.model!r})"

    @property
    def name(self) -> str:
        """`openai:` and the model's name."""
        return f"openai:{self.model}"

    @property
    def dimensions(self) -> int:
        """Length of a vector. Raises EndpointError where the endpoint has to be asked and does not reply."""
        with self._lock:
            if self._dimensions is None:
                self._dimensions = len(self._vectors(["dimensions"])[0])
            return self._dimensions

    @property
    def fingerprint(self) -> str:
        """Model and dimensions."""
        return f"openai-{self.model}-{self.dimensions}-v1"

    def close(self) -> None:
        """Close idle connections."""
        self._endpoint.close()

    def count_tokens(self, text: str) -> int:
        """About how many tokens a text has."""
        return pieces.count(text)

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of those, in characters."""
        return pieces.spans(text)

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """fp32 [N, dimensions], L2-normalised; zeros for a text without tokens. Raises EndpointError."""
        found = np.zeros((len(texts), self.dimensions), np.float32)
        asked = [(row, self._cut(text)) for row, text in enumerate(texts) if pieces.count(text)]
        for first in range(0, len(asked), BATCH):
            batch = asked[first : first + BATCH]
            vectors = self._vectors([text for _, text in batch])
            if vectors.shape[1] != self.dimensions:
                raise self._endpoint.malformed(f"vectors of {vectors.shape[1]} numbers, not {self.dimensions}")
            lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
            found[[row for row, _ in batch]] = vectors / np.maximum(lengths, 1e-12)
        return found

    def _cut(self, text: str) -> str:
        """What is read of a text: no more than `max_tokens` tell, as with every embedder."""
        ends = pieces.spans(text)
        return text if len(ends) <= self.max_tokens else text[: ends[self.max_tokens - 1][1]]

    def _vectors(self, texts: list[str]) -> NDArray[np.float64]:
        body: dict[str, Any] = {"model": self.model, "input": texts, "encoding_format": "float"}
        if self._shorten:
            body["dimensions"] = self._dimensions
        reply = self._endpoint.post("embeddings", body)

        def read() -> NDArray[np.float64]:
            rows: dict[int, list[float]] = {entry["index"]: entry["embedding"] for entry in reply["data"]}
            vectors = np.array([rows[place] for place in range(len(texts))], np.float64)
            if vectors.ndim != 2 or not vectors.size or not np.isfinite(vectors).all():
                raise ValueError("its vectors are not lists of finite numbers")
            return vectors

        vectors: NDArray[np.float64] = parsed(self._endpoint, read)
        return vectors
