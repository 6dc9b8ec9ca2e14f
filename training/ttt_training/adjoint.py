"""The outer gradient of meta-learning: an explicit adjoint over mini-batches (paper, section 3).

Forward, the fold reads a sequence as the product does, without an outer graph, and keeps the fast weights and the
suffix's keys and values before every k-th block. Backward, block by block, the graph of one block is built again and
the cotangents of the fast weights and of the cached keys and values are pulled through it (`pullback.py`). So memory is
what is kept, plus the graph of one block, whatever the text's length. Blocks that nothing is written from (a control's
are all such) keep their graphs from the way forward, as many as the memory given has room for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from ttt_memory.model.blocks import precise
from ttt_memory.model.cache import Cache
from ttt_memory.model.fold import Segment, fast_impl, fast_loss
from ttt_memory.model.transformer import Transformer
from ttt_training.kept_prefix import KeptPrefix
from ttt_training.outcome import OuterGradient, Recall
from ttt_training.passes import steps_of
from ttt_training.prefix import Prefix, add_to
from ttt_training.pullback import BlockGraph, CacheCotangent, Leaves, copies, leaves, paired, pull_block, read_block
from ttt_training.sharding import whole
from ttt_training.spacing import kept_graphs, spacing
from ttt_training.writing import finite, pull_write, written

__all__ = ["OuterGradient", "Recall", "outer_gradient"]


def outer_gradient(
    net: Transformer,
    segments: Sequence[Segment],
    *,
    parameters: Iterable[str],
    order: Literal[1, 2] = 2,
    writes: bool = True,
    kv_grad: bool = True,
    every: int = 1,
    memory: float = math.inf,
    rate_scale: float = 1.0,
    recall: Recall | None = None,
    method: Literal["auto", "reverse", "tangent"] = "auto",
    on_block: Callable[[], None] | None = None,
    kept_prefix: KeptPrefix | None = None,
) -> OuterGradient:
    """Loss of reading `segments` from W0 as the fold reads them, and its gradient.

    Args:
        net: the network. `w0_*` and `inner_rates` are the fp32 masters of the inner loop where they are fp32. Its
            parameters' `requires_grad` is False afterwards.
        segments: one training sequence: state is carried from one to the next, the window is not.
        parameters: names from `net.named_parameters()` to differentiate.
        order: 1 leaves out how a write depends on the weights through its gradient.
        writes: False reads everything under W0: the control, and models without dynamic MLPs.
        kv_grad: False holds the suffix's cached keys and values constant, which is cheaper and biased.
        every: blocks between kept states. Larger saves memory and costs one more forward and inner gradient per block.
        memory: bytes that kept states may take; `every` is raised until they do, as far as that helps. What is
            left holds graphs of blocks without a write, which then are not built twice.
        rate_scale: multiplies the inner rates (their warm-up).
        recall: an extra loss after the last write.
        method: how the second-order term is computed; see `pullback.pull_block`. "auto": "tangent" on a CPU.
        on_block: called after every block, forward and backward; what it raises ends the work.
        kept_prefix: where outputs of the prefix are looked for, and kept; unused where the prefix is trained.

    Raises:
        InvalidInputError: token ids that the model has not.
        ValueError: unknown parameter names, or `every` below 1.
    """
    if every < 1:
        raise ValueError(f"every is {every}, expected at least 1")
    names = tuple(parameters)
    if unknown := set(names) - {name for name, _ in net.named_parameters()}:
        raise ValueError(f"unknown parameters {sorted(unknown)}")
    if method == "auto":
        method = "tangent" if net.embedding.device.type == "cpu" else "reverse"
    differentiated = [
        block
        for index, block in enumerate(net.layers()[: net.config.prefix_layers])
        if any(name.startswith(f"blocks.{index}.") for name in names)
    ]
    with whole(net, *differentiated):
        net.requires_grad_(False)
        return _Adjoint(
            net,
            segments,
            names,
            order,
            writes,
            kv_grad,
            every,
            memory,
            rate_scale,
            recall,
            method,
            on_block,
            kept_prefix,
        ).run()


@dataclass
class _State:
    """Before one block: masters, cache; the inner gradient and its norm that the block wrote with, or its graph."""

    masters: list[Tensor]
    cache: Cache
    inner: list[Tensor] | None = None
    norm: float = 0.0
    graph: BlockGraph | None = None


class _Adjoint:
    def __init__(
        self,
        net: Transformer,
        segments: Sequence[Segment],
        names: tuple[str, ...],
        order: int,
        writes: bool,
        kv_grad: bool,
        every: int,
        memory: float,
        rate_scale: float,
        recall: Recall | None,
        method: str,
        on_block: Callable[[], None] | None,
        kept_prefix: KeptPrefix | None,
    ) -> None:
        self.net, self.order, self.kv_grad, self.method = net, order, kv_grad, method
        self.on_block = on_block or (lambda: None)
        config, device = net.config, net.embedding.device
        writes = writes and config.dynamic_layers > 0
        self.steps = steps_of(segments, config, writes=writes, device=device)
        self.main = len(self.steps)
        if recall is not None:
            span = steps_of([recall.segment], config, writes=False, total=recall.weight, device=device)
            self.steps += span
        # The update after the last loss is read by nobody.
        last = max((i for i, step in enumerate(self.steps) if step.targets is not None), default=-1)
        self.steps = [replace(s, share=None) if i >= last else s for i, s in enumerate(self.steps)]
        self.every = spacing(net, self.steps, every=every, memory=memory)
        self.graphs = kept_graphs(net, self.steps, memory=memory) if self.every == 1 else set()
        self.recall = recall
        self.rates, self.rate_scale = net.inner_rates.detach() * rate_scale, rate_scale
        suffix = [f"blocks.{index}." for index in range(config.prefix_layers, config.layers)]
        self.w0 = [f"{block}{part}" for block in suffix for part in ("w0_gate_up", "w0_down")]
        known = dict(net.named_parameters())
        self.start = [precise(known[name]).detach() for name in self.w0]
        own = {*self.w0, "inner_rates"}
        late = {name for name in names if name not in own and name.startswith((*suffix, "final_norm", "head"))}
        if net.head is None and "embedding" in names:
            late.add("embedding")
        early = {name for name in names if name not in own and (name not in late or name == "embedding")}
        self.names = names
        self.late = {name: known[name] for name in names if name in late}
        self.prefix = Prefix(net, parameters={n: known[n] for n in names if n in early})
        self.kept_prefix = None if self.prefix.trained else kept_prefix
        self.grads: dict[str, Tensor] = {}
        self.losses = [math.nan] * len(self.steps)
        self._copied: tuple[list[Tensor], list[Tensor]] | None = None

    def run(self) -> OuterGradient:
        kept, norms = self._forward()
        if kept is not None:
            self._backward(kept)
        steps = self.steps[: self.main]
        pairs = zip(steps, self.losses, strict=False)
        losses = [(loss, len(step.targets)) for step, loss in pairs if step.targets is not None]
        tokens = sum(count for _, count in losses)
        recalled = None
        if self.recall is not None:
            late = zip(self.steps[self.main :], self.losses[self.main :], strict=True)
            recalled = math.fsum(s.weight * loss for s, loss in late if s.targets is not None) / self.recall.weight
        total = math.fsum(loss * count for loss, count in losses) / tokens if kept is not None else math.nan
        return OuterGradient(
            loss=total,
            mini_batch_losses=tuple(loss for loss, _ in losses),
            tokens=tokens,
            grads={name: self.grads[name] for name in self.names if name in self.grads},
            inner_norms=tuple(norms),
            recall_loss=recalled,
        )

    def _forward(self) -> tuple[dict[int, _State] | None, list[float]]:
        """Kept states by block; None where a step is not finite."""
        self.x = []
        found = self.kept_prefix.find(self.steps) if self.kept_prefix is not None else None
        ahead = self.prefix.read_ahead(self.steps) if found is None else found
        kept, norms = {}, []
        masters, cache = self.start, self.net.empty_cache().suffix
        for index, step in enumerate(self.steps):
            self.x.append(self.prefix.read(step) if ahead is None else ahead[index])
            if step.opens:
                cache = self.net.empty_cache().suffix
            state = _State(masters, cache)
            masters, cache = self._advance(index, state)
            if step.share is not None:
                norms.append(state.norm)
                if not finite(self.losses[index], state.norm):
                    return None, norms
            if index % self.every == 0:
                if self.every > 1:
                    state.inner = None
                kept[index] = state
            self.on_block()
        if self.kept_prefix is not None and found is None:
            self.kept_prefix.add(self.steps, self.x)
        return kept, norms

    def _advance(self, index: int, state: _State) -> tuple[list[Tensor], Cache]:
        """Reads block `index` as the fold does and writes it; fills in the state's inner gradient and the loss."""
        net, step = self.net, self.steps[index]
        if index in self.graphs:
            state.graph = read_block(net, self._leaves(index, state), self.late)
            return state.masters, state.graph.left.detach()
        writes = step.share is not None
        weights = self._copies(state.masters)
        with torch.set_grad_enabled(writes):
            hidden, cache = net.suffix(self.x[index], paired(weights), state.cache, impl=fast_impl(net))
            if not writes:
                return state.masters, cache
            assert step.targets is not None
            assert step.share is not None
            loss = net.nll(hidden[0], step.targets, impl=fast_loss(net)).mean()
            state.inner = list(torch.autograd.grad(loss, weights))
        self.losses[index] = float(loss.detach())
        inner = net.config.inner
        after, state.norm = written(state.masters, state.inner, self.rates, inner, share=step.share, anchors=self.start)
        return after, cache.detach()

    def _copies(self, masters: list[Tensor]) -> list[Tensor]:
        """What the blocks compute with; made once for all blocks between two writes."""
        if self._copied is None or self._copied[0] is not masters:
            self._copied = masters, copies(masters, self.net.dtype)
        return self._copied[1]

    def _leaves(self, index: int, state: _State) -> Leaves:
        weights = self._copies(state.masters)
        return leaves(self.x[index], weights, state.cache, kv_grad=self.kv_grad, want_x=self.prefix.trained)

    def _backward(self, kept: dict[int, _State]) -> None:
        cot: list[Tensor] | None = None
        after: CacheCotangent | None = None
        d_xs: list[Tensor | None] = [None] * len(self.steps)
        for first in reversed(range(0, len(self.steps), self.every)):
            states = self._group(first, kept.pop(first))
            for index in reversed(range(first, first + len(states))):
                cot, after, d_xs[index] = self._pull(index, states.pop(), cot, after)
                self.on_block()
        for name, grad in zip(self.w0, cot or [], strict=False):
            if name in self.names:
                add_to(self.grads, name, grad)
        if self.prefix.trained:
            for name, grad in self.prefix.pull(self.steps, d_xs).items():
                add_to(self.grads, name, grad)

    def _group(self, first: int, state: _State) -> list[_State]:
        """States of the blocks from a kept one to the next, read again."""
        if self.every == 1:
            return [state]
        states = [state]
        for index in range(first, min(first + self.every, len(self.steps))):
            masters, cache = self._advance(index, states[-1])
            if index + 1 < min(first + self.every, len(self.steps)):
                opens = self.steps[index + 1].opens
                states.append(_State(masters, self.net.empty_cache().suffix if opens else cache))
        return states

    def _pull(
        self, index: int, state: _State, cot: list[Tensor] | None, after: CacheCotangent | None
    ) -> tuple[list[Tensor] | None, CacheCotangent | None, Tensor | None]:
        net, step = self.net, self.steps[index]
        inner = None
        if step.share is not None and cot is not None:
            assert state.inner is not None
            back = pull_write(
                state.masters, state.inner, self.rates, net.config.inner, cot,
                share=step.share, norm=state.norm, anchors=self.start,
            )  # fmt: skip
            cot = back.weights
            if "inner_rates" in self.names:
                add_to(self.grads, "inner_rates", back.rates * self.rate_scale)
            for name, grad in zip(self.w0, back.anchors or [], strict=False):
                if name in self.names:
                    add_to(self.grads, name, grad)
            inner = back.grads if self.order == 2 else None
        if step.targets is None and after is None:
            return cot, None, None
        pulled = pull_block(
            net, step, state.graph.leaves if state.graph is not None else self._leaves(index, state),
            inner=inner, after=after, parameters=self.late, method=self.method, read=state.graph,
        )  # fmt: skip
        if step.share is None:
            self.losses[index] = pulled.loss
        for name, found in pulled.parameters.items():
            if found is not None:
                add_to(self.grads, name, found)
        return _sum(cot, pulled.weights), pulled.cache, pulled.x


def _sum(cot: list[Tensor] | None, more: Sequence[Tensor | None]) -> list[Tensor] | None:
    if cot is None:
        wide = [None if t is None else t.to(torch.promote_types(t.dtype, torch.float32)) for t in more]
        return None if any(t is None for t in wide) else [t for t in wide if t is not None]
    return [old if new is None else old.add_(new) for old, new in zip(cot, more, strict=True)]
