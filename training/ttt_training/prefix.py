"""The blocks before the first dynamic one: read once per sequence, differentiated once if any of them is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ttt_memory.model.cache import Cache
from ttt_memory.model.fold import fast_impl
from ttt_memory.model.transformer import Transformer
from ttt_training.passes import Step
from ttt_training.pullback import CacheCotangent, cache_of, cache_tensors, tracked
from ttt_training.sharding import is_sharded, whole


class Prefix:
    """Outputs of the prefix, block of tokens by block; caches are kept only where it is trained."""

    def __init__(self, net: Transformer, *, parameters: Mapping[str, Tensor]) -> None:
        """`parameters`: those of the prefix and of the embedding that are trained, by name."""
        self._net, self._parameters = net, parameters
        self._caches: list[Cache] = []
        self._cache = net.empty_cache().prefix
        self._after: CacheCotangent | None = None

    @property
    def trained(self) -> bool:
        """Whether cotangents of the outputs are of any use."""
        return bool(self._parameters)

    @torch.no_grad()
    def read(self, step: Step) -> Tensor:
        """[1, n, D]: the suffix's input for the next block of tokens."""
        if step.opens:
            self._cache = self._net.empty_cache().prefix
        if self.trained:
            self._caches.append(self._cache)
        x, self._cache = self._net.prefix(self._net.embed(step.inputs[None]), self._cache, impl=fast_impl(self._net))
        return x

    @torch.no_grad()
    def read_ahead(self, steps: Sequence[Step]) -> list[Tensor] | None:
        """What `read` would give for every step, where blocks are sharded: block by block, each gathered once."""
        net, layers = self._net, self._net.layers()[: self._net.config.prefix_layers]
        if self.trained or not any(is_sharded(block) for block in layers):
            return None
        xs = [net.embed(step.inputs[None]) for step in steps]
        for index, block in enumerate(layers):
            with whole(block):
                length, cached = 0, net.empty_cache().prefix.layers[index]
                for at, step in enumerate(steps):
                    if step.opens:
                        length, cached = 0, net.empty_cache().prefix.layers[index]
                    rope = net.rope(length + xs[at].shape[1], xs[at].device, xs[at].dtype)
                    x, cached = block.attend(xs[at], cached, length, rope, fast_impl(net))
                    xs[at] = block.static(x)
                    length += x.shape[1]
        return xs

    def pull(self, steps: Sequence[Step], cotangents: Sequence[Tensor | None]) -> dict[str, Tensor]:
        """Gradients of the parameters from cotangents [1, n, D] of every block's output; last block first."""
        grads: dict[str, Tensor] = {}
        after: CacheCotangent | None = None
        for index in reversed(range(len(steps))):
            step = steps[index]
            for name, grad in self._pull_block(step, self._caches[index], cotangents[index], after).items():
                add_to(grads, name, grad)
            after = None if step.opens else self._after
        return grads

    def _pull_block(
        self, step: Step, cache: Cache, d_x: Tensor | None, after: CacheCotangent | None
    ) -> dict[str, Tensor]:
        net = self._net
        entries = [tensor.detach().requires_grad_() for tensor in cache_tensors(cache)]
        with tracked(self._parameters), torch.enable_grad():
            embedded = net.embed(step.inputs[None])
            x, left = net.prefix(embedded, cache_of(cache.length, entries), impl=fast_impl(net))
            pairs = [(x, d_x), *zip(cache_tensors(left), after or [], strict=False)]
            used = [(out, cot) for out, cot in pairs if cot is not None and out.requires_grad]
            inputs = [*self._parameters.values(), *entries]
            if not used:
                self._after = None
                return {}
            outs, cots = zip(*used, strict=True)
            pulled = torch.autograd.grad(outs, inputs, cots, allow_unused=True)
        count = len(self._parameters)
        self._after = list(pulled[count:])
        found = zip(self._parameters, pulled[:count], strict=True)
        return {name: grad for name, grad in found if grad is not None}


def add_to(grads: dict[str, Tensor], name: str, grad: Tensor) -> None:
    """Adds `grad` to an entry that is fp32 at least, and a tensor of its own."""
    if name in grads:
        grads[name].add_(grad)
    else:
        grads[name] = grad.to(torch.promote_types(grad.dtype, torch.float32), copy=True)
