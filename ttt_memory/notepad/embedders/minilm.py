"""all-MiniLM-L6-v2 in plain torch: six BERT layers, mean pooling, unit length.

Every text runs by itself, without padding: matrix products of another shape may round differently, and a passage's
vector must not depend on what else is embedded with it (another tenant's text, or the size of a batch).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from ttt_memory.artifacts import ARTIFACTS
from ttt_memory.errors import ModelFormatError, ModelNotFoundError
from ttt_memory.notepad.embedders.wordpiece import WordPiece
from ttt_memory.notepad.late import Tokens

_LAYERS, _HEADS, _WIDTH = 6, 12, 384
_EPS = 1e-12
_MAX_TOKENS = 254
_LENGTH_STEP = 32
"""Texts are filled up to a multiple of this: PyTorch keeps compiled kernels for every length it meets, about 100 MB in
all, and a memory that reads for long meets every length."""


class MiniLM:
    """Sentences and short passages to 384 dimensions. Immutable; safe to use from several threads.

    On one machine with one thread count the same text always gives the same vector. Across machines, thread counts and
    number formats vectors agree to a cosine of 0.999.
    """

    name = "minilm"
    dimensions = _WIDTH
    max_tokens = _MAX_TOKENS

    def __init__(self, tensors: Mapping[str, Tensor], wordpiece: WordPiece, *, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._wordpiece = wordpiece
        self._begin, self._end = wordpiece.id_of("[CLS]"), wordpiece.id_of("[SEP]")
        try:
            words = tensors["embeddings.word_embeddings.weight"]
            # The only segment is segment 0, so its embedding belongs to the positions'.
            types = tensors["embeddings.token_type_embeddings.weight"][0]
            self._embeddings = words, tensors["embeddings.position_embeddings.weight"].float() + types.float()
            self._embedding_norm = _pair(tensors, "embeddings.LayerNorm", torch.float32)
            self._layers = [_Layer(tensors, f"encoder.layer.{index}") for index in range(_LAYERS)]
        except KeyError as error:
            raise ModelFormatError("The embedder's weights are incomplete.", why=f"no tensor {error}") from error

    @classmethod
    def load(cls, folder: Path | None = None, *, dtype: torch.dtype | None = None) -> MiniLM:
        """The embedder from `model.safetensors` and `vocab.txt` in `folder` (default: as fetched by `model pull`).

        Args:
            folder: where the files are.
            dtype: of computing; default bf16 where the processor multiplies it natively, else fp32.

        Raises:
            ModelNotFoundError: the files are not there.
            ModelFormatError: they cannot be read.
        """
        published = ARTIFACTS["minilm"]
        if folder is None:
            if not published.present:
                raise ModelNotFoundError(
                    "The embedder 'minilm' is not on this machine.", fix="ttt-memory model pull", model="minilm"
                )
            folder = published.folder
        weights, vocabulary = folder / "model.safetensors", folder / "vocab.txt"
        try:
            tensors = load_file(weights)
            lines = vocabulary.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (SafetensorError, OSError, UnicodeDecodeError) as error:
            raise ModelFormatError(f"Cannot read the embedder in {folder}.", why=str(error)) from error
        computing = dtype or (torch.bfloat16 if _native_bf16() else torch.float32)
        matrices = {name: t.to(computing) for name, t in tensors.items() if t.is_floating_point()}
        wordpiece = WordPiece({word: index for index, word in enumerate(lines)})
        return cls(matrices, wordpiece, fingerprint=f"minilm-{published.members[0].sha256[:16]}-v2")

    def count_tokens(self, text: str) -> int:
        """Number of WordPiece tokens in `text`, without the two that mark its ends."""
        return len(self._wordpiece.tokenize(text))

    def token_spans(self, text: str) -> list[tuple[int, int]]:
        """(start, end) of each token, in characters of `text`."""
        return [(start, end) for _, start, end in self._wordpiece.tokenize(text)]

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """fp32 [N, 384], L2-normalised; of each text the first 254 tokens are read. Zeros for a text without tokens."""
        vectors = np.zeros((len(texts), _WIDTH), np.float32)
        with torch.inference_mode():
            for row, text in zip(vectors, texts, strict=True):
                ids = [token for token, _, _ in self._wordpiece.tokenize(text)[:_MAX_TOKENS]]
                if ids:
                    row[:] = self._vector([self._begin, *ids, self._end]).numpy()
        return vectors

    def embed_tokens(self, texts: Sequence[str]) -> tuple[np.ndarray, list[Tokens]]:
        """What `embed` returns, and for each text its tokens with unit vectors fp32 [T, 128], from the same pass.

        The vectors are the last layer's states on their 128 principal directions, found on public-domain books by
        `benchmarks/fit_token_projection.py`.
        """
        vectors = np.zeros((len(texts), _WIDTH), np.float32)
        tokens: list[Tokens] = []
        with torch.inference_mode():
            for row, text in zip(vectors, texts, strict=True):
                found = self._wordpiece.tokenize(text)[:_MAX_TOKENS]
                x = self._states([self._begin, *(token for token, _, _ in found), self._end])
                if found:
                    row[:] = F.normalize(x.mean(0), dim=0).numpy()
                small = F.normalize(x[1:-1] @ self._projection, dim=1).numpy()
                tokens.append(Tokens([(start, end) for _, start, end in found], small))
        return vectors, tokens

    def states(self, text: str) -> Tensor:
        """The last layer's states of a text's tokens, fp32 [T, 384]; of the first 254."""
        with torch.inference_mode():
            ids = [token for token, _, _ in self._wordpiece.tokenize(text)[:_MAX_TOKENS]]
            return self._states([self._begin, *ids, self._end])[1:-1]

    @cached_property
    def _projection(self) -> Tensor:
        return load_file(Path(__file__).with_name("minilm_projection.safetensors"))["projection"].float()

    def _vector(self, ids: list[int]) -> Tensor:
        return F.normalize(self._states(ids).mean(0), dim=0)

    def _states(self, ids: list[int]) -> Tensor:
        """States of the last layer, fp32 [T, 384]."""
        words, positions = self._embeddings
        length = len(ids)
        padded = ids + [self._end] * (-length % _LENGTH_STEP)
        known = torch.arange(len(padded)) < length
        x = F.embedding(torch.tensor(padded), words).float() + positions[: len(padded)]  # [T, 384], fp32 residuals
        x = F.layer_norm(x, (_WIDTH,), *self._embedding_norm, _EPS)
        for layer in self._layers:
            x = layer(x, known)
        return x[:length]


class _Layer:
    """One post-norm BERT block. Matrix products in the weights' dtype, norms and residuals in fp32."""

    def __init__(self, tensors: Mapping[str, Tensor], name: str) -> None:
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        self._qkv = tuple(torch.cat([tensors[f"{part}.{kind}"] for part in parts]) for kind in ("weight", "bias"))
        self._out = _pair(tensors, f"{name}.attention.output.dense")
        self._attention_norm = _pair(tensors, f"{name}.attention.output.LayerNorm", torch.float32)
        self._up = _pair(tensors, f"{name}.intermediate.dense")
        self._down = _pair(tensors, f"{name}.output.dense")
        self._mlp_norm = _pair(tensors, f"{name}.output.LayerNorm", torch.float32)

    def __call__(self, x: Tensor, known: Tensor) -> Tensor:
        """[T, 384] to [T, 384], fp32; only the tokens that are `known`, [T], are attended to."""
        dtype = self._out[0].dtype
        heads = F.linear(x.to(dtype), *self._qkv).view(len(x), 3, _HEADS, -1).permute(1, 2, 0, 3)  # [3, H, T, d]
        q, k, v = heads.unsqueeze(1).unbind(0)
        attended = (
            F.scaled_dot_product_attention(q, k, v, attn_mask=known[None, None, None])[0]
            .transpose(0, 1)
            .reshape(len(x), _WIDTH)
        )
        x = F.layer_norm(x + F.linear(attended, *self._out).float(), (_WIDTH,), *self._attention_norm, _EPS)
        hidden = F.gelu(F.linear(x.to(dtype), *self._up))
        return F.layer_norm(x + F.linear(hidden, *self._down).float(), (_WIDTH,), *self._mlp_norm, _EPS)


def _pair(tensors: Mapping[str, Tensor], name: str, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return weight.to(dtype or weight.dtype), bias.to(dtype or bias.dtype)


def _native_bf16() -> bool:
    """torch names the probe privately; a release without it is one without the fast path."""
    supported = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(supported is not None and supported())
