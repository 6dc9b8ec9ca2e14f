"""One Transformer block, in the paper's style or Llama's.

Legend: B batch, T tokens, D hidden, H query heads, K key/value heads, d head width, F MLP width.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from ttt_kernels.attention import Rope, attention
from ttt_kernels.swiglu import swiglu

from ttt_memory.model.cache import LayerCache
from ttt_memory.model.config import ModelConfig


class DynamicWeights(NamedTuple):
    """Fast weights of one layer as the block computes with them: gate above up [2F, D], down [D, F]."""

    gate_up: Tensor
    down: Tensor


def precise(x: Tensor) -> Tensor:
    """fp32, or float64 where the input is: the precision of norms and of the residual stream."""
    return x if x.dtype == torch.float64 else x.float()


def rms_norm(x: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """scale * x / sqrt(mean(x²) + eps) over the last axis, computed in fp32 at least, given as `dtype`."""
    return F.rms_norm(precise(x), (x.shape[-1],), precise(scale), eps).to(dtype)


def _empty(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.empty(*shape))


class Block(nn.Module):
    """Attention, the dynamic MLP if there is one, the static MLP: each a residual branch with its own norm.

    Weight matrices are [out, in]; q, k, v and gate, up are fused by rows. Paper style adds a norm after each branch's
    operation and one for the heads of q and k.
    """

    def __init__(self, config: ModelConfig, *, dynamic: bool) -> None:
        super().__init__()
        self.config = config
        D, d = config.hidden, config.head_dim
        paper = config.block == "paper"
        self.attn_norm = _empty(D)
        self.qkv = _empty((config.heads + 2 * config.kv_heads) * d, D)
        self.out = _empty(D, config.heads * d)
        self.mlp_norm = _empty(D)
        self.gate_up = _empty(2 * config.mlp, D)
        self.down = _empty(D, config.mlp)
        if dynamic:
            self.dynamic_norm = _empty(D)
            self.w0_gate_up = _empty(2 * config.dynamic_mlp, D)
            self.w0_down = _empty(D, config.dynamic_mlp)
        self.q_norm = _empty(d) if paper else None
        self.k_norm = _empty(d) if paper else None
        self.attn_post_norm = _empty(D) if paper else None
        self.mlp_post_norm = _empty(D) if paper else None
        self.dynamic_post_norm = _empty(D) if paper and dynamic else None

    def attend(self, x: Tensor, cache: LayerCache, start: int, rope: Rope, impl: str) -> tuple[Tensor, LayerCache]:
        """Adds attention over the window and sinks to x [B, T, D]; `start` is the position of its first token."""
        config = self.config
        batch, length, _ = x.shape
        y = F.linear(self.normed(x, self.attn_norm), self.qkv)
        heads = y.view(batch, length, -1, config.head_dim).transpose(1, 2)  # [B, H + 2K, T, d]
        q, k, v = torch.split(heads, [config.heads, config.kv_heads, config.kv_heads], dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.normed(q, self.q_norm), self.normed(k, self.k_norm)
        after = cache.extend(k, v, config)
        y = attention(
            q,
            k,
            v,
            window=config.window,
            start=start,
            prefix=cache.recent if cache.recent.k.shape[2] else None,
            sinks=after.sinks if config.sinks else None,
            rope=rope,
            impl=impl,
        )
        y = F.linear(y.transpose(1, 2).reshape(batch, length, -1), self.out)
        return self.add(x, y, self.attn_post_norm), after

    def dynamic(self, x: Tensor, weights: DynamicWeights) -> Tensor:
        """Adds the dynamic MLP, with the given fast weights, to x [B, T, D]."""
        y = swiglu(self.normed(x, self.dynamic_norm), weights.gate_up, weights.down)
        return self.add(x, y, self.dynamic_post_norm)

    def static(self, x: Tensor) -> Tensor:
        """Adds the ordinary MLP to x [B, T, D]."""
        y = swiglu(self.normed(x, self.mlp_norm), self.gate_up, self.down)
        return self.add(x, y, self.mlp_post_norm)

    def normed(self, x: Tensor, scale: Tensor) -> Tensor:
        """RMSNorm of x with `scale`, in the precision of the products that follow."""
        return rms_norm(x, scale, self.config.norm_eps, self.qkv.dtype)

    def add(self, x: Tensor, branch: Tensor, post_norm: Tensor | None) -> Tensor:
        """x plus a residual branch, normed first in the paper's style."""
        return x + (branch if post_norm is None else rms_norm(branch, post_norm, self.config.norm_eps, x.dtype))
