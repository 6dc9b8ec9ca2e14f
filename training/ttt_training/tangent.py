"""The suffix with a tangent: hidden states, and their derivative along a direction of the fast weights.

The gradient of <G, u>, where G is the gradient of the loss by the fast weights, is the gradient of the loss's
derivative along u: second derivatives are symmetric. So the second-order term costs one pass forward with tangents and
one backward, no gradient of a gradient, and every product with a static matrix serves values and tangents at once.

Cached keys and values have no tangent: they are constants for the inner gradient.

Legend: B = 1 sequence, n tokens, D hidden, H query heads, K key/value heads, d head width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor
from ttt_kernels.attention import Rope

from ttt_memory.model.blocks import Block, DynamicWeights, precise, rms_norm
from ttt_memory.model.cache import Cache, LayerCache
from ttt_memory.model.fold import fast_impl
from ttt_memory.model.transformer import Transformer
from ttt_training.tangent_attention import attend
from ttt_training.tangent_loss import mean_loss
from ttt_training.tangent_swiglu import swiglu


def loss_and_derivative(
    net: Transformer,
    x: Tensor,
    weights: Sequence[DynamicWeights],
    along: Sequence[DynamicWeights],
    cache: Cache,
    targets: Tensor,
) -> tuple[Tensor, Tensor, Cache]:
    """(mean loss, its derivative along `along`, cache after): differentiable once, by everything but `along`.

    Args:
        net: the network.
        x: [1, n, D], the suffix's input.
        weights, along: fast weights and the direction, in the network's precision.
        cache: of the suffix before these tokens.
        targets: [n].
    """
    rope, layers = net.rope(cache.length + x.shape[1], x.device, x.dtype), []
    dx: Tensor | None = None
    suffix = net.layers()[net.config.prefix_layers :]
    for block, weight, direction, layer in zip(suffix, weights, along, cache.layers, strict=True):
        if dx is None:
            x, after = block.attend(x, layer, cache.length, rope, fast_impl(net))
        else:
            x, dx, after = _attention(block, x, dx, layer, cache.length, rope)
        x, dx = _dynamic(block, x, dx, weight, direction)
        x, dx = _static(block, x, dx)
        layers.append(after)
    assert dx is not None
    config = net.config
    hidden, d_hidden = _normed(x, dx, net.final_norm, config.norm_eps, net.dtype)
    assert d_hidden is not None
    head = net.embedding if net.head is None else net.head
    loss, slope = mean_loss(hidden[0], d_hidden[0], head, targets)
    return loss, slope, Cache(cache.length + x.shape[1], tuple(layers))


def _attention(
    block: Block, x: Tensor, dx: Tensor, cache: LayerCache, start: int, rope: Rope
) -> tuple[Tensor, Tensor, LayerCache]:
    config = block.config
    length = x.shape[1]
    both = F.linear(torch.cat(_both(block, x, dx, block.attn_norm)), block.qkv)
    heads = both.view(2, length, -1, config.head_dim).transpose(1, 2)  # [2, H + 2K, n, d]
    qs, ks, vs = torch.split(heads, [config.heads, config.kv_heads, config.kv_heads], dim=1)
    q, k = (qs[:1], qs[1:]), (ks[:1], ks[1:])
    if block.q_norm is not None and block.k_norm is not None:
        q, k = _both(block, *q, block.q_norm), _both(block, *k, block.k_norm)
    after = cache.extend(k[0], vs[:1], config)
    y, dy = attend(q, k, (vs[:1], vs[1:]), cache.recent, after.sinks, window=config.window, start=start, rope=rope)
    out = F.linear(torch.cat((y, dy)).transpose(1, 2).reshape(2, length, -1), block.out)
    return *_add(block, x, dx, out[:1], out[1:], block.attn_post_norm), after


def _dynamic(
    block: Block, x: Tensor, dx: Tensor | None, weights: DynamicWeights, along: DynamicWeights
) -> tuple[Tensor, Tensor]:
    z, dz = _normed(x, dx, block.dynamic_norm, block.config.norm_eps, block.qkv.dtype)
    y, dy = swiglu(z, dz, weights.gate_up, weights.down, along.gate_up, along.down)
    return _add(block, x, dx, y, dy, block.dynamic_post_norm)


def _static(block: Block, x: Tensor, dx: Tensor) -> tuple[Tensor, Tensor]:
    z, dz = _both(block, x, dx, block.mlp_norm)
    y, dy = swiglu(z, dz, block.gate_up, block.down, None, None)
    return _add(block, x, dx, y, dy, block.mlp_post_norm)


def _add(
    block: Block, x: Tensor, dx: Tensor | None, y: Tensor, dy: Tensor, post_norm: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The residual stream and its tangent after a branch."""
    if post_norm is not None:
        y, normed = _normed(y, dy, post_norm, block.config.norm_eps, x.dtype)
        assert normed is not None
        dy = normed
    return x + y, dy.to(x.dtype) if dx is None else dx + dy


def _both(block: Block, x: Tensor, dx: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    y, dy = _normed(x, dx, scale, block.config.norm_eps, block.qkv.dtype)
    assert dy is not None
    return y, dy


def _normed(
    x: Tensor, dx: Tensor | None, scale: Tensor, eps: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor | None]:
    """RMSNorm and its derivative along dx."""
    y = rms_norm(x, scale, eps, dtype)
    if dx is None:
        return y, None
    wide, along = precise(x), precise(dx)
    inverse = torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    unit = wide * inverse
    bent = along - unit * (unit * along).mean(-1, keepdim=True)
    return y, (bent * (inverse * precise(scale))).to(dtype)
