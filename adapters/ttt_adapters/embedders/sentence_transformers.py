"""Models of the sentence-transformers library, on this machine."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ttt_memory.errors import InvalidInputError, MissingExtraError


class SentenceTransformersEmbedder:
    """A sentence-transformers model as the embedder of a memory.

    Every text is computed by itself, so its vector does not depend on its neighbours. The fingerprint is of the
    weights, whatever folder or name they were loaded from.

    Args:
        model: a name or a folder, as sentence-transformers takes it. Its tokenizer must give offsets ("fast" ones do).
        device: `"cpu"`, `"cuda"`; None lets the library choose.

    Raises:
        MissingExtraError: the extra `sentence-transformers` is not installed.
        InvalidInputError: the model's tokenizer gives no offsets.
    """

    def __init__(self, model: str, *, device: str | None = None) -> None:
        self._model = _library().SentenceTransformer(model, device=device)
        if not getattr(self._model.tokenizer, "is_fast", False):
            raise InvalidInputError(
                f"The tokenizer of {model!r} gives no offsets.", fix="Choose a model with a fast one."
            )
        self.name = f"sentence-transformers:{'-'.join(str(model).split())}"
        # Newer releases name it so, and warn of the old name.
        newer = getattr(self._model, "get_embedding_dimension", None)
        self.dimensions = int((newer or self._model.get_sentence_embedding_dimension)())
        self.max_tokens = max(1, min(254, int(self._model.max_seq_length or 254) - 2))
        self.fingerprint = f"sentence-transformers-{_digest(self._model)}-v1"

    def __repr__(self) -> str:
        return f"SentenceTransformersEmbedder({self.name!r})"

    def count_tokens(self, text: str) -> int:
        """Number of the model's tokens in a text."""
        return len(self.token_spans(text))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each token, in characters."""
        read = self._model.tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, truncation=False, verbose=False
        )
        return [(start, end) for start, end in read["offset_mapping"] if end > start]

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """fp32 [N, dimensions], L2-normalised; zeros for a text without tokens."""
        found = np.zeros((len(texts), self.dimensions), np.float32)
        for row, text in zip(found, texts, strict=True):
            if text.strip():
                row[:] = self._model.encode(
                    text, normalize_embeddings=True, convert_to_numpy=True, show_progress_bar=False
                )
        return found


def _library() -> Any:
    try:
        import sentence_transformers
    except ImportError as error:
        raise MissingExtraError(
            "sentence-transformers", extra="sentence-transformers", needed_for="SentenceTransformersEmbedder"
        ) from error
    return sentence_transformers


def _digest(model: Any) -> str:
    """Of names and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().float().numpy().tobytes())
    return digest.hexdigest()[:16]
