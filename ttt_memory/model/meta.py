"""The sequence loss of meta-learning: the fold, kept differentiable through its own writes (paper, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ttt_memory.model.cache import Cache
from ttt_memory.model.inner import write
from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer, working


@dataclass(frozen=True)
class SequenceLoss:
    """What one sequence gave. C mini-batches, T tokens.

    Attributes:
        loss: scalar, the plain mean of `chunk_losses`; differentiable.
        chunk_losses: [C], each before its own update.
        nll: [T] nats, unmasked.
        states: fast weights before the first step and after each, C + 1.
        grad_norms: [C], global norm of the inner gradient before the clip.
        gradients: inner gradients before the clip, C of them, shaped like the state.
        prefix: [T, D], input of the first block with a dynamic MLP.
        logits: [T, V].
        cache: keys and values of the suffix after the last mini-batch; None for `pretrain_loss`.
    """

    loss: Tensor
    chunk_losses: Tensor
    nll: Tensor
    states: tuple[FastWeights, ...]
    grad_norms: Tensor
    gradients: tuple[FastWeights, ...]
    prefix: Tensor
    logits: Tensor
    cache: Cache | None = None


def sequence_loss(
    net: Transformer,
    inputs: Tensor,
    targets: Tensor,
    mask: Tensor | None = None,
    *,
    rate_scale: float = 1.0,
    create_graph: bool = True,
) -> SequenceLoss:
    """Loss of reading one sequence from W0 with a write after every mini-batch, a shorter last one included.

    Args:
        net: network whose parameters are differentiated; nothing on the way is detached.
        inputs, targets: [T] int64, targets one token ahead.
        mask: [T], 1 where a target counts; default all.
        rate_scale: multiplies the inner rates (warm-up).
        create_graph: keep second-order terms; False differentiates the losses but not the writes.

    Raises ValueError for another inner rule than SGD: this is the reference implementation's loop, with gate and up as
    matrices of their own, which SGD does not notice and Muon does. `ttt_training.adjoint` has every rule.
    """
    config = net.config
    if config.inner.rule != "sgd":
        raise ValueError(f"the inner rule is {config.inner.rule!r}, expected 'sgd'")
    mask = torch.ones(targets.shape, dtype=net.final_norm.dtype, device=targets.device) if mask is None else mask
    state, rates = net.initial_state(), net.inner_rates * rate_scale
    anchors = list(state.tensors().values())
    x, _ = net.prefix(net.embed(inputs[None]), net.empty_cache().prefix, impl="reference")
    cache = net.empty_cache().suffix
    states, gradients, losses, nlls, norms, logits = [state], [], [], [], [], []
    for first in range(0, len(inputs), config.inner.mini_batch):
        rows = slice(first, first + config.inner.mini_batch)
        hidden, cache = net.suffix(x[:, rows], working(state, net.dtype), cache, impl="reference")
        nll = net.nll(hidden[0], targets[rows], impl="reference")
        loss = masked_mean(nll, mask[rows])
        masters = list(state.tensors().values())
        grads = torch.autograd.grad(loss, masters, create_graph=create_graph, retain_graph=True)
        step = write(masters, grads, rates, config.inner, share=len(nll) / config.inner.mini_batch, anchors=anchors)
        state = _like(state, step.weights)
        states.append(state)
        gradients.append(_like(state, grads))
        losses.append(loss)
        nlls.append(nll)
        norms.append(step.norm)
        logits.append(net.logits(hidden[0]))
    chunk_losses = torch.stack(losses)
    return SequenceLoss(
        loss=chunk_losses.mean(),
        chunk_losses=chunk_losses,
        nll=torch.cat(nlls),
        states=tuple(states),
        grad_norms=torch.stack(norms),
        gradients=tuple(gradients),
        prefix=x[0],
        logits=torch.cat(logits),
        cache=cache,
    )


def pretrain_loss(net: Transformer, inputs: Tensor, targets: Tensor, mask: Tensor | None = None) -> SequenceLoss:
    """Loss without writes (`pretrain` mode): blocks of `mini_batch` tokens, the dynamic MLPs of W0 where there are any.

    With a window the cache runs on from block to block; full attention starts again in each, as in the reference.
    """
    config = net.config
    mask = torch.ones(targets.shape, dtype=net.final_norm.dtype, device=targets.device) if mask is None else mask
    state = net.initial_state()
    weights, cache = working(state, net.dtype), net.empty_cache()
    losses, nlls, logits, prefixes = [], [], [], []
    for first in range(0, len(inputs), config.inner.mini_batch):
        rows = slice(first, first + config.inner.mini_batch)
        if config.window is None:
            cache = net.empty_cache()
        x, prefix = net.prefix(net.embed(inputs[None, rows]), cache.prefix, impl="reference")
        hidden, suffix = net.suffix(x, weights, cache.suffix, impl="reference")
        cache = cache._replace(prefix=prefix, suffix=suffix)
        nll = net.nll(hidden[0], targets[rows], impl="reference")
        losses.append(masked_mean(nll, mask[rows]))
        nlls.append(nll)
        logits.append(net.logits(hidden[0]))
        prefixes.append(x[0])
    chunk_losses = torch.stack(losses)
    none = chunk_losses.new_zeros(0)
    return SequenceLoss(
        chunk_losses.mean(), chunk_losses, torch.cat(nlls), (state,), none, (), torch.cat(prefixes), torch.cat(logits)
    )


def masked_mean(nll: Tensor, mask: Tensor) -> Tensor:
    """sum(mask * nll) / max(sum(mask), 1e-10)."""
    return (nll * mask).sum() / mask.sum().clamp(min=1e-10)


def _like(state: FastWeights, tensors: tuple[Tensor, ...]) -> FastWeights:
    return FastWeights.from_tensors(dict(zip(state.tensors(), tensors, strict=True)))
