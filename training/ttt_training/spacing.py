"""What the adjoint may keep between blocks, so that it fits into a given memory."""

from __future__ import annotations

from collections.abc import Sequence

from ttt_memory.model.transformer import Transformer
from ttt_training.passes import Step


def spacing(net: Transformer, steps: Sequence[Step], *, every: int, memory: float) -> int:
    """The smallest distance from `every` on whose kept states need at most `memory` bytes, or that need least.

    A sequence of many short appends has a write, and so a state, for every one of them.
    """
    best, least = every, float("inf")
    for candidate in range(every, len(steps) + 1):
        needed = kept_bytes(net, steps, candidate)
        if needed <= memory:
            return candidate
        if needed < least:
            best, least = candidate, needed
    return best


def kept_bytes(net: Transformer, steps: Sequence[Step], every: int) -> int:
    """Bytes of the fast weights, inner gradients and suffix caches that the adjoint holds at its peak."""
    config, size = net.config, net.embedding.element_size()
    fast = sum(p.numel() for name, p in net.named_parameters() if "w0_" in name)
    state, gradient = fast * max(4, size), fast * size
    keys = sum(len(step.inputs) for step in steps) if config.window is None else config.window + config.sinks
    cache = config.dynamic_layers * 2 * keys * config.kv_heads * config.head_dim * size
    writes = [step.share is not None for step in steps]
    kept = range(0, len(steps), every)
    # Blocks without a write between two kept states share one.
    versions = len({sum(writes[:index]) for index in kept})
    group = max((sum(writes[first : first + every]) for first in kept), default=0)
    together = sum(writes) * gradient if every == 1 else group * (state + gradient) + every * cache
    return versions * state + len(kept) * cache + together


def kept_graphs(net: Transformer, steps: Sequence[Step], *, memory: float) -> set[int]:
    """Blocks without a write whose graphs have room beside the states of every block: the last, which go first."""
    room = memory - kept_bytes(net, steps, 1)
    kept: set[int] = set()
    for index in reversed(range(len(steps))):
        if steps[index].share is None:
            room -= graph_bytes(net, len(steps[index].inputs))
            if room < 0:
                break
            kept.add(index)
    return kept


def graph_bytes(net: Transformer, tokens: int) -> int:
    """Bytes that one block of the suffix saves for its way back; somewhat more than measured on a CPU."""
    config, size = net.config, net.embedding.element_size()
    seen = tokens if config.window is None else tokens + config.window + config.sinks
    products = (4 * (config.mlp + config.dynamic_mlp) + 6 * config.hidden) * size
    norms = 4 * config.hidden * max(4, size)
    keys = 6 * config.kv_heads * config.head_dim * size  # and values: cached, joined, rotated
    return config.dynamic_layers * (tokens * (products + norms) + seen * keys)
