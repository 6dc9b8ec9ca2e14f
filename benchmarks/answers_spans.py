"""Span-constrained generation: the local model may only write what stands in the passages, word for word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ttt_memory.answerers.generate import prompt, prompt_tokens
from ttt_memory.model.decoder import Decoder
from ttt_memory.model.fold import fast_impl
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.types import Passage

MAX_TOKENS = 24
LEAD = "The answer is:"
"""What the model's turn begins with, so that a span begins with a space as it does in the text."""


@torch.no_grad()
def span(model: LoadedModel, question: str, passages: Sequence[Passage]) -> str:
    """Write greedily among the continuations that stand in the passages; the model ends it, or MAX_TOKENS does."""
    tokenizer, net = model.tokenizer, model.net
    shown = prompt(model, question, passages).passages
    texts = [tokenizer.encode(" " + passage.text.strip()).tolist() for passage in shown]
    at = [(n, i) for n, ids in enumerate(texts) for i in range(len(ids)) if _begins(tokenizer.decode_bytes([ids[i]]))]
    context = np.concatenate([prompt_tokens(model, question, passages), tokenizer.encode(LEAD)])
    ids = torch.from_numpy(context.astype(np.int64))
    cache = net.empty_cache()
    for block in torch.split(ids[:-1], net.config.inner.mini_batch):
        cache = net.read(block[None], None, cache, impl=fast_impl(net))[1]
    stepper = Decoder(net, None, cache)
    token = int(ids[-1])
    written: list[int] = []
    for _ in range(MAX_TOKENS):
        logits = stepper.step(token)
        allowed = sorted({texts[n][i] for n, i in at if i < len(texts[n])})
        ends = sorted(tokenizer.stop_tokens) if written else []
        choices = [*allowed, *ends]
        if not choices:
            break
        token = choices[int(logits[choices].argmax())]
        if token in ends:
            break
        written.append(token)
        at = [(n, i + 1) for n, i in at if i < len(texts[n]) and texts[n][i] == token]
    return tokenizer.decode(np.array(written, np.int32)).strip() if written else ""


def _begins(token: bytes) -> bool:
    """Whether a token opens a word."""
    return token[:1] == b" " and token[1:2].isalnum()
