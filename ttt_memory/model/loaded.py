"""A model ready for use: network, tokenizer and the fingerprint under which its states are named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from ttt_memory.model.config import FOLD_VERSION, ModelConfig
from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer


class Tokenizer(Protocol):
    """What the memory needs of a tokenizer. Token ids are int32 arrays."""

    @property
    def vocab_size(self) -> int:
        """Number of ids the model can embed."""

    @property
    def stop_tokens(self) -> frozenset[int]:
        """Ids that end a generated answer."""

    @property
    def fingerprint(self) -> str:
        """Hex digest of the vocabulary and rules."""

    def encode(self, text: str) -> np.ndarray:
        """Ids of `text`, int32. Strings that look like special tokens are data and never interpreted."""

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 are replaced."""

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of `ids`, exactly."""

    def chat(self, messages: Sequence[tuple[str, str]], *, generation_prompt: bool) -> np.ndarray:
        """Ids of a conversation of (role, content) in the model's template; contents are data."""


@dataclass(frozen=True)
class LoadedModel:
    """A base model in memory. Immutable; shared by every tenant of a process."""

    name: str
    net: Transformer
    tokenizer: Tokenizer
    fingerprint: str
    compute_dtype: torch.dtype

    @property
    def config(self) -> ModelConfig:
        """Shape and inner loop of the network."""
        return self.net.config

    def initial_state(self) -> FastWeights:
        """W0: the fast weights of a memory that has read nothing; the same tensors at every call."""
        return self._w0

    @cached_property
    def _w0(self) -> FastWeights:
        return self.net.initial_state().detach()


def fingerprint_of(base_digest: str, w0_digest: str, tokenizer_fingerprint: str, config: ModelConfig) -> str:
    """Hex name of a model: base bytes, W0 as loaded, tokenizer, configuration with its inner loop, FOLD_VERSION."""
    parts = {
        "base": base_digest,
        "w0": w0_digest,
        "tokenizer": tokenizer_fingerprint,
        "config": config.to_dict(),
        "fold": FOLD_VERSION,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
