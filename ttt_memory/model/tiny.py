"""`model="tiny"`: a seeded 2-block model with a byte tokenizer; the users' test double and ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import torch

from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.model.loaded import LoadedModel, fingerprint_of
from ttt_memory.model.transformer import Transformer

START, TURN, END = 256, 257, 258
_SPECIALS = 3

CONFIG = ModelConfig(
    vocab_size=256 + _SPECIALS,
    hidden=64,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=16,
    mlp=128,
    dynamic_layers=1,
    dynamic_mlp=128,
    window=64,
    sinks=2,
    rope_theta=10_000.0,
    start_token=START,
    segment_tokens=512,
    context_tokens=64,
    append_context_tokens=32,
    inner=InnerConfig(rate=0.5, mini_batch=128),
)


class ByteTokenizer:
    """One id per UTF-8 byte; 256 starts a document, 257 a turn of a conversation, 258 ends one."""

    vocab_size = 256 + _SPECIALS
    stop_tokens = frozenset({START, TURN, END})
    fingerprint = hashlib.sha256(b"bytes 1").hexdigest()

    def encode(self, text: str) -> np.ndarray:
        """UTF-8 bytes of `text` as int32; lone surrogates become question marks."""
        return np.frombuffer(text.encode("utf-8", "replace"), np.uint8).astype(np.int32)

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """Bytes of `ids`; special ids give none."""
        return bytes(int(token) for token in ids if token < 256)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of `ids`; bytes that are not UTF-8 are replaced."""
        return self.decode_bytes(ids).decode("utf-8", "replace")

    def chat(self, messages: Sequence[tuple[str, str]], *, generation_prompt: bool) -> np.ndarray:
        """A turn mark, the role, a newline and the content for each message; then an opened assistant turn."""
        parts = [np.array([START], np.int32)]
        for role, content in messages:
            parts += [np.array([TURN], np.int32), self.encode(f"{role}\n{content}"), np.array([END], np.int32)]
        if generation_prompt:
            parts += [np.array([TURN], np.int32), self.encode("assistant\n")]
        return np.concatenate(parts)


@lru_cache(maxsize=1)
def tiny() -> LoadedModel:
    """The model "tiny": fp32, under 1M parameters, the same weights everywhere. One object a process."""
    net = Transformer(CONFIG)
    random = np.random.Generator(np.random.PCG64(20_251_223))
    sha = hashlib.sha256()
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name == "inner_rates":
                parameter.fill_(CONFIG.inner.rate)
            elif parameter.ndim == 1:
                parameter.fill_(1.0)
            elif name.endswith("w0_down"):
                parameter.zero_()
            else:
                # Uniform, because its bits come from integers alone: a normal draw would go through libm.
                scale = (3.0 / parameter.shape[1]) ** 0.5
                drawn = random.random(tuple(parameter.shape), dtype=np.float32)
                parameter.copy_(torch.from_numpy((drawn * 2 - 1) * np.float32(scale)))
            sha.update(parameter.detach().numpy().tobytes())
    net.requires_grad_(False)
    tokenizer = ByteTokenizer()
    w0 = net.initial_state().digest()
    return LoadedModel(
        name="tiny",
        net=net,
        tokenizer=tokenizer,
        fingerprint=fingerprint_of(sha.hexdigest(), w0, tokenizer.fingerprint, CONFIG),
        compute_dtype=torch.float32,
    )
