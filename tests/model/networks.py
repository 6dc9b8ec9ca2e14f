"""Small random networks and helpers shared by the model tests."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from typing import Any, TypeVar

import torch

from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.model.transformer import Transformer

Result = TypeVar("Result")

LLAMA = ModelConfig(
    vocab_size=120,
    hidden=32,
    layers=3,
    heads=4,
    kv_heads=2,
    head_dim=8,
    mlp=48,
    dynamic_layers=2,
    dynamic_mlp=48,
    window=24,
    sinks=4,
    segment_tokens=64,
    context_tokens=24,
    append_context_tokens=8,
    inner=InnerConfig(mini_batch=16),
)
PAPER = replace(LLAMA, block="paper", kv_heads=4, sinks=0)


def network(
    config: ModelConfig = LLAMA, *, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any
) -> Transformer:
    """Random weights large enough for the blocks to matter."""
    net = Transformer(replace(config, **changes))
    net.initialise(torch.Generator().manual_seed(seed), std=0.2)
    return net.to(dtype)


def drain(generator: Generator[Any, None, Result]) -> tuple[Result, list[Any]]:
    """A generator's return value and everything it yielded."""
    yielded = []
    while True:
        try:
            yielded.append(next(generator))
        except StopIteration as stop:
            return stop.value, yielded
