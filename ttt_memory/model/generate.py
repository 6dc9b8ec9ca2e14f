"""Generation with a cache of fixed size: sampling, stop strings, streaming that never splits a character."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.cache import PassCache
from ttt_memory.model.decoder import Decoder
from ttt_memory.model.fold import fast_impl
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer, Working, working


@dataclass(frozen=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        max_tokens: tokens generated at most.
        temperature: 0 takes the likeliest token; otherwise logits are divided by it.
        top_p: smallest set of likeliest tokens whose probability reaches this.
        repetition_penalty: logits of tokens generated before are divided (if positive) or multiplied by it; 1 is none.
        stop: strings that end the text; they are not part of it.
        seed: makes sampling repeatable; None draws one.
    """

    max_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None

    def __post_init__(self) -> None:
        valid = {
            "max_tokens must be at least 0": self.max_tokens >= 0,
            "temperature must be at least 0": self.temperature >= 0,
            "top_p must be in (0, 1]": 0 < self.top_p <= 1,
            "repetition_penalty must be positive": self.repetition_penalty > 0,
            "stop strings must not be empty": all(self.stop),
        }
        if wrong := [rule for rule, holds in valid.items() if not holds]:
            raise InvalidInputError("These sampling settings cannot be used.", why="; ".join(wrong))


def generate(
    model: LoadedModel, state: FastWeights | None, prompt: np.ndarray, sampling: Sampling | None = None
) -> Iterator[str]:
    """Continues `prompt` (token ids) under `state` (None: dynamic MLPs skipped), piece by piece.

    Yields after every block of the prompt and after every token, so that a scheduler can put other work in between: a
    piece is empty while a character is incomplete or a stop string may have begun. Never writes to `state`. The
    number of keys and values held is bounded by the window and the sinks.

    Raises:
        InvalidInputError: an id of the prompt is not in the vocabulary.
    """
    sampling = Sampling() if sampling is None else sampling
    net, tokenizer = model.net, model.tokenizer
    ids = torch.from_numpy(np.asarray(prompt, np.int64)).to(net.embedding.device)
    if not len(ids):
        ids = ids.new_tensor([net.config.start_token])
    if not 0 <= int(ids.min()) <= int(ids.max()) < net.config.vocab_size:
        raise InvalidInputError("The prompt holds an id outside the vocabulary.", why=f"size {net.config.vocab_size}")
    weights = None if state is None else working(state.detach(), net.dtype)
    cache = net.empty_cache()
    for block in torch.split(ids[:-1], net.config.inner.mini_batch) if len(ids) > 1 else ():
        cache = _advance(net, block, weights, cache)
        yield ""
    grows = net.config.window is None or net.config.full_attention_every
    stepper = _Grown(net, weights, cache) if grows else Decoder(net, weights, cache)
    chooser, text = _Chooser(sampling), _Stream(sampling.stop)
    token = int(ids[-1])
    for _ in range(sampling.max_tokens):
        token = chooser(stepper.step(token))
        if token in tokenizer.stop_tokens:
            break
        yield text.push(tokenizer.decode_bytes([token]))
        if text.stopped:
            return
    yield text.finish()


@torch.no_grad()
def _advance(net: Transformer, block: Tensor, weights: Working | None, cache: PassCache) -> PassCache:
    return net.read(block[None], weights, cache, impl=fast_impl(net))[1]


class _Grown:
    """Single steps of a network in which some block has no window, so that the cache grows."""

    def __init__(self, net: Transformer, weights: Working | None, cache: PassCache) -> None:
        self._net, self._weights, self._cache = net, weights, cache

    @torch.no_grad()
    def step(self, token: int) -> Tensor:
        """Logits [V] after one more token."""
        ids = torch.tensor([[token]], device=self._net.embedding.device)
        hidden, self._cache = self._net.read(ids, self._weights, self._cache, impl=fast_impl(self._net))
        return self._net.logits(hidden[0, 0])


class _Chooser:
    """Picks tokens as `Sampling` says."""

    def __init__(self, sampling: Sampling) -> None:
        self._sampling = sampling
        self._random = torch.Generator()
        if sampling.seed is None:
            self._random.seed()
        else:
            self._random.manual_seed(sampling.seed)
        self._used: set[int] = set()

    def __call__(self, logits: Tensor) -> int:
        sampling = self._sampling
        if sampling.repetition_penalty != 1.0 and self._used:
            used = torch.tensor(sorted(self._used), device=logits.device)
            scores = logits[used]
            penalty = sampling.repetition_penalty
            logits = logits.index_copy(0, used, torch.where(scores > 0, scores / penalty, scores * penalty))
        token = int(logits.argmax()) if sampling.temperature == 0 else self._draw(logits / sampling.temperature)
        self._used.add(token)
        return token

    def _draw(self, logits: Tensor) -> int:
        p, order = torch.softmax(logits.cpu(), dim=-1).sort(descending=True)
        # A token is kept if those before it do not reach top_p yet: the first always is.
        p = p * (p.cumsum(0) - p < self._sampling.top_p)
        return int(order[torch.multinomial(p, 1, generator=self._random)])


class _Stream:
    """Turns bytes into text as soon as it is certain."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = stop
        self._held = ""
        self.stopped = False

    def push(self, data: bytes) -> str:
        """Text that can be shown after these bytes."""
        return self._release(self._decoder.decode(data))

    def finish(self) -> str:
        """What is left at the end."""
        return self._release(self._decoder.decode(b"", final=True)) + self._held

    def _release(self, text: str) -> str:
        self._held += text
        found = [at for at in (self._held.find(stop) for stop in self._stop) if at >= 0]
        if found:
            shown, self._held, self.stopped = self._held[: min(found)], "", True
            return shown
        keep = max((_overlap(self._held, stop) for stop in self._stop), default=0)
        cut = len(self._held) - keep
        shown, self._held = self._held[:cut], self._held[cut:]
        return shown


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that begins `stop`."""
    return next((size for size in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-size:])), 0)
