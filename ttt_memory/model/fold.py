"""The fold: segments in, fast weights out. DESIGN.md, "Semantics"; a change here is a new FOLD_VERSION."""

from __future__ import annotations

import math
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.blocks import DynamicWeights
from ttt_memory.model.cache import PassCache
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.inner import write
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer, Working, working


@dataclass(frozen=True)
class Segment:
    """The only thing that the fold consumes. Token ids, int32 or int64.

    Attributes:
        context: preceding live tokens, re-read without loss; empty: a start token is fed instead.
        tokens: predicted tokens, in order.
    """

    context: np.ndarray
    tokens: np.ndarray


@dataclass(frozen=True)
class Step:
    """One inner step.

    Attributes:
        loss: mean loss of the mini-batch before its update, nats per token.
        tokens: predicted tokens in it.
        grad_norm: global norm before the clip.
        skipped: loss or gradient was not finite, so nothing was written.
    """

    loss: float
    tokens: int
    grad_norm: float
    skipped: bool


def segments(tokens: np.ndarray, preceding: np.ndarray, config: ModelConfig, *, append: bool) -> Iterator[Segment]:
    """Cuts a document, or an append to a stream, into segments of at most `segment_tokens` predicted tokens.

    Args:
        tokens: the document's ids.
        preceding: live ids before it in the same stream, oldest first; empty for a document of its own.
        config: sizes.
        append: the first segment's context is cut to `append_context_tokens` of `preceding`; a document that is not an
            append has no context there, and `preceding` is not read.
    """
    if not append:
        preceding = preceding[:0]
    before = preceding[max(0, len(preceding) - config.context_tokens) :]
    for first in range(0, len(tokens), config.segment_tokens):
        limit = config.append_context_tokens if first == 0 else config.context_tokens
        near = tokens[max(0, first - limit) : first]
        far = before[max(0, len(before) - (limit - len(near))) :]
        yield Segment(np.concatenate((far, near)), tokens[first : first + config.segment_tokens])


def read(model: LoadedModel, state: FastWeights, segment: Segment) -> Generator[Step | None, None, FastWeights]:
    """Reads one segment, writing after every mini-batch; returns the new state and never changes `state`.

    Yields a Step after every mini-batch of predicted tokens and None after every block of context, so that a scheduler
    can put other work in between.
    """
    config, inner = model.config, model.config.inner
    feed = _Feed(model.net, segment)
    learner = _Learner(model, state)
    for block in feed.context():
        feed.advance(block, learner.weights)
        yield None
    for inputs, targets in feed.mini_batches(inner.mini_batch):
        yield learner.step(feed, inputs, targets, share=len(targets) / config.inner.mini_batch)
    return learner.state()


def score(model: LoadedModel, state: FastWeights | None, segment: Segment) -> Generator[None, None, np.ndarray]:
    """Nats [N] float32 of every predicted token, without writes; `state=None` skips the dynamic MLPs.

    Yields None after every mini-batch of work.
    """
    feed = _Feed(model.net, segment)
    weights = None if state is None else working(state.detach(), model.net.dtype)
    for block in feed.context():
        feed.advance(block, weights)
        yield None
    losses = []
    for inputs, targets in feed.mini_batches(model.config.inner.mini_batch):
        losses.append(feed.losses(inputs, targets, weights))
        yield None
    return np.concatenate(losses) if losses else np.zeros(0, np.float32)


def fast_impl(net: Transformer) -> str:
    """Attention implementation for work that is differentiated at most once."""
    return "flash" if _on_cpu(net) else "auto"


def fast_loss(net: Transformer) -> str:
    """Cross-entropy implementation for work that never wants the head's gradient."""
    return "chunked" if _on_cpu(net) else "auto"


def _on_cpu(net: Transformer) -> bool:
    return net.embedding.device.type == "cpu"


class _Feed:
    """One pass over one segment: what has been read, and its cache."""

    def __init__(self, net: Transformer, segment: Segment) -> None:
        self.net = net
        self.impl = fast_impl(net)
        self.cache: PassCache = net.empty_cache()
        vocabulary = net.config.vocab_size
        context, tokens = (torch.from_numpy(np.asarray(ids, np.int64)) for ids in (segment.context, segment.tokens))
        for name, ids in (("context", context), ("tokens", tokens)):
            if ids.ndim != 1 or (len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary):
                raise InvalidInputError(
                    f"The segment's {name} are not a row of token ids.", why=f"ids must be in 0..{vocabulary - 1}"
                )
        before = context if len(context) else torch.tensor([net.config.start_token])
        device = net.embedding.device
        self._context = before[:-1].to(device)
        self._tokens = torch.cat((before[-1:], tokens)).to(device)

    def context(self) -> Iterator[Tensor]:
        """Blocks of context whose successors are not predicted."""
        yield from torch.split(self._context, self.net.config.inner.mini_batch) if len(self._context) else ()

    def mini_batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """(inputs, targets) of at most `size` predicted tokens, counted from the segment's start."""
        for first in range(0, len(self._tokens) - 1, size):
            span = self._tokens[first : first + size + 1]
            yield span[:-1], span[1:]

    @torch.no_grad()
    def advance(self, inputs: Tensor, weights: Working | None) -> Tensor:
        """Hidden states [N, D] of the next tokens; the cache moves on."""
        hidden, self.cache = self.net.read(inputs[None], weights, self.cache, impl=self.impl)
        return hidden[0]

    @torch.no_grad()
    def losses(self, inputs: Tensor, targets: Tensor, weights: Working | None) -> np.ndarray:
        """Nats [N] of the targets; the cache moves on."""
        nll = self.net.nll(self.advance(inputs, weights), targets, impl=fast_loss(self.net))
        return nll.float().cpu().numpy()

    def gradients(
        self, inputs: Tensor, targets: Tensor, weights: list[DynamicWeights]
    ) -> tuple[float, tuple[Tensor, ...]]:
        """Mean loss and its gradient by the tensors of `weights`; cached keys and values are constants."""
        net = self.net
        with torch.no_grad():
            x, prefix = net.prefix(net.embed(inputs[None]), self.cache.prefix, impl=self.impl)
        with torch.enable_grad():
            hidden, suffix = net.suffix(x, weights, self.cache.suffix, impl=self.impl)
            loss = net.nll(hidden[0], targets, impl=fast_loss(net)).mean()
            grads = torch.autograd.grad(loss, [tensor for layer in weights for tensor in layer])
        self.cache = PassCache(prefix, suffix.detach())
        return loss.item(), grads


class _Learner:
    """The state being written: fp32 masters of its own, and the copies that the network computes with."""

    def __init__(self, model: LoadedModel, state: FastWeights) -> None:
        self._config = model.config.inner
        self._impl = "in_place" if _on_cpu(model.net) else "triton_in_place"
        self._rates = model.net.inner_rates.detach()
        self._masters = _fused(state)
        self._anchors = _w0(model.net) if self._config.decay else None
        dtype = model.net.dtype
        with torch.no_grad():
            copies = [master.detach() if master.dtype == dtype else master.to(dtype) for master in self._masters]
        self.weights = [
            DynamicWeights(gate_up.requires_grad_(), down.requires_grad_())
            for gate_up, down in zip(copies[::2], copies[1::2], strict=True)
        ]

    def step(self, feed: _Feed, inputs: Tensor, targets: Tensor, *, share: float) -> Step:
        """Reads one mini-batch, then writes it."""
        loss, grads = feed.gradients(inputs, targets, self.weights)
        if not math.isfinite(loss):
            return Step(loss, len(targets), math.nan, skipped=True)
        written = write(
            self._masters, grads, self._rates, self._config, share=share, anchors=self._anchors, impl=self._impl
        )
        norm = float(written.norm)
        if not math.isfinite(norm):
            return Step(loss, len(targets), norm, skipped=True)
        self._refresh()
        return Step(loss, len(targets), norm, skipped=False)

    @torch.no_grad()
    def _refresh(self) -> None:
        copies = [tensor for layer in self.weights for tensor in layer]
        for copy, master in zip(copies, self._masters, strict=True):
            if copy.dtype != master.dtype:
                copy.copy_(master)

    def state(self) -> FastWeights:
        """The masters as fast weights. The learner must not be used afterwards."""
        halves = [gate_up.chunk(2) for gate_up in self._masters[::2]]
        return FastWeights(
            gate=tuple(gate for gate, _ in halves),
            up=tuple(up for _, up in halves),
            down=tuple(self._masters[1::2]),
        )


def _w0(net: Transformer) -> list[Tensor]:
    """W0 in the order of `_fused`: the network's own tensors, copied only where they are not fp32."""
    blocks = net.layers()[net.config.prefix_layers :]
    return [tensor.detach().float() for block in blocks for tensor in (block.w0_gate_up, block.w0_down)]


def _fused(state: FastWeights) -> list[Tensor]:
    """Fresh fp32 copies: gate above up, down, layer by layer."""
    layers = zip(state.gate, state.up, state.down, strict=True)
    return [
        tensor
        for gate, up, down in layers
        for tensor in (torch.cat((gate.detach(), up.detach())).float(), down.detach().float().clone())
    ]
