"""Models of the paper's shapes with random weights, and attention as PyTorch has it, for jobs on whole models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from ttt_kernels import _checks
from ttt_kernels.attention import KeyValues, Rope, rotate

from ttt_memory.model import blocks as model_blocks
from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.model.transformer import Transformer

blocks: Any = model_blocks
"""The module whose `attention` is exchanged."""

_PAPER: dict[str, Any] = {"vocab_size": 128256, "block": "paper", "sinks": 0, "window": 8192, "rope_theta": 500_000.0}

SHAPES = {
    "125M": ModelConfig(
        hidden=768, layers=12, heads=12, kv_heads=12, head_dim=64, mlp=1664, dynamic_layers=3, dynamic_mlp=1664,
        inner=InnerConfig(mini_batch=1024), **_PAPER,
    ),
    "760M": ModelConfig(
        hidden=1536, layers=24, heads=16, kv_heads=16, head_dim=96, mlp=3328, dynamic_layers=6, dynamic_mlp=3328,
        inner=InnerConfig(mini_batch=1024), **_PAPER,
    ),
    "small": ModelConfig(
        hidden=32, layers=3, heads=2, kv_heads=2, head_dim=16, mlp=24, dynamic_layers=1, dynamic_mlp=24,
        inner=InnerConfig(mini_batch=16), **{**_PAPER, "vocab_size": 100, "window": 32},
    ),
}  # fmt: skip


def build(name: str, device: str, dtype: torch.dtype) -> Transformer:
    """A network of one shape, weights drawn with seed 0."""
    net = Transformer(SHAPES[name])
    net.initialise(torch.Generator().manual_seed(0))
    return net.to(device, dtype)


@contextmanager
def using(how: str) -> Iterator[str]:
    """`impl` for the network's calls: "ours" (Triton), "reference", or PyTorch's attention by "math" or "flash"."""
    auto, attention = _checks.auto, blocks.attention
    try:
        if how != "ours":
            _checks.auto = lambda tensor: "reference"
        if how in ("math", "flash"):
            blocks.attention = _sdpa(SDPBackend.MATH if how == "math" else SDPBackend.FLASH_ATTENTION)
        yield "auto" if how == "ours" else "reference"
    finally:
        _checks.auto, blocks.attention = auto, attention


def _sdpa(backend: SDPBackend) -> Any:
    def attention(
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        window: int | None,
        start: int,
        prefix: KeyValues | None,
        rope: Rope,
        **_: Any,
    ) -> Tensor:
        if prefix is not None:
            k, v = torch.cat((prefix.k, k), dim=2), torch.cat((prefix.v, v), dim=2)
        first = start + q.shape[2] - k.shape[2]
        q, k = _turned(q, start, rope), _turned(k, first, rope)
        with sdpa_kernel(backend):
            if window is None:
                return scaled_dot_product_attention(q, k, v, is_causal=True)
            at = torch.arange(start, start + q.shape[2], device=q.device)[:, None]
            key = torch.arange(first, first + k.shape[2], device=q.device)[None]
            return scaled_dot_product_attention(q, k, v, attn_mask=(key <= at) & (key > at - window))

    return attention


def _turned(x: Tensor, first: int, rope: Rope) -> Tensor:
    rows = slice(first, first + x.shape[2])
    return rotate(x, rope.cos[rows], rope.sin[rows], interleaved=rope.interleaved)
