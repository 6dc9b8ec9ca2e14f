"""What the outer loop trains, by name, and the fp32 masters of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import torch
from torch import Tensor

from ttt_memory.model.blocks import precise
from ttt_memory.model.transformer import Transformer
from ttt_training.errors import TrainingConfigError
from ttt_training.lora import LowRank
from ttt_training.sharding import Sharding, local

Choice = Literal["dynamic", "dynamic+norms", "lora", "all"]
CHOICES: tuple[str, ...] = get_args(Choice)


def trained_names(net: Transformer, choice: str) -> tuple[str, ...]:
    """Parameters that are differentiated.

    - `dynamic`: the initial fast weights W0 and the inner rates.
    - `dynamic+norms`: also every norm scale of the blocks with a dynamic MLP, and the final one.
    - `lora`: as `dynamic`, and the other blocks' matrices, through low-rank adapters.
    - `all`: everything.

    Raises TrainingConfigError for another choice, or where the network has nothing of it.
    """
    if choice not in CHOICES:
        raise TrainingConfigError(f"There is no choice {choice!r} of what to train.", fix=f"One of {CHOICES}.")
    names = [name for name, _ in net.named_parameters()]
    dynamic = {name for name in names if "w0_" in name or (name == "inner_rates" and net.config.dynamic_layers)}
    suffix = tuple(f"blocks.{index}." for index in range(net.config.prefix_layers, net.config.layers))
    chosen = {
        "dynamic": dynamic,
        "dynamic+norms": dynamic | {name for name in names if "norm" in name and name.startswith((*suffix, "final"))},
        "lora": dynamic | set(_static_matrices(net)),
        "all": set(names) if net.config.dynamic_layers else set(names) - {"inner_rates"},
    }[choice]
    if not chosen:
        raise TrainingConfigError(
            f"The choice {choice!r} trains nothing of this network.", why="it has no dynamic MLPs", fix="Train 'all'."
        )
    return tuple(name for name in names if name in chosen)


class Trained:
    """A network in training: fp32 masters (float64 for a float64 network) of what is trained.

    Vectors, W0 and the inner rates of the network become the masters themselves; matrices that the network computes
    with in another precision are copied from their masters by `publish`.

    Attributes:
        names: parameters of the network to differentiate.
        masters: what the optimizer moves, by parameter name (and the adapters' for `lora`).
    """

    def __init__(self, net: Transformer, choice: str, *, rank: int = 8, alpha: float = 16.0, seed: int = 0) -> None:
        self.net, self.names = net, trained_names(net, choice)
        self._parameters = dict(net.named_parameters())
        self._sharding: Sharding | None = None
        self._low_rank: LowRank | None = None
        adapted: set[str] = set()
        if choice == "lora":
            adapted = set(_static_matrices(net))
            bases = {name: self._parameters[name].detach().clone() for name in self.names if name in adapted}
            self._low_rank = LowRank(bases, rank=rank, alpha=alpha, generator=torch.Generator().manual_seed(seed))
        self._adapted = adapted
        self.masters: dict[str, Tensor] = {}
        for name in self.names:
            parameter = self._parameters[name]
            if name in adapted:
                parameter.data = parameter.data.clone()  # the original may be a read-only mapped file
                continue
            master = precise(parameter.detach()).clone()
            self.masters[name] = master
            alias = master.ndim == 1 or "w0_" in name
            parameter.data = master if alias else parameter.data.clone()
        if self._low_rank is not None:
            self.masters |= self._low_rank.masters

    @torch.no_grad()
    def publish(self) -> None:
        """Gives the network the masters as they are now."""
        for name in self.names:
            parameter = self._parameters[name]
            if name in self._adapted:
                assert self._low_rank is not None
                parameter.copy_(self._low_rank.merged(name))
                continue
            mine = local(parameter)
            if mine.data_ptr() != self.masters[name].data_ptr():
                mine.copy_(self.masters[name])

    @property
    def adapted(self) -> frozenset[str]:
        """Matrices that are trained through adapters."""
        return frozenset(self._adapted)

    @torch.no_grad()
    def shard(self, sharding: Sharding) -> None:
        """Keeps this rank's rows of the masters, once the network's parameters have been sharded."""
        self._parameters = dict(self.net.named_parameters())
        self._sharding = sharding
        self.masters = {name: sharding.rows(name, master) for name, master in self.masters.items()}

    @torch.no_grad()
    def pull(self, grads: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Gradients of the masters from those of the network's parameters."""
        pulled: dict[str, Tensor] = {}
        for name, grad in grads.items():
            if name in self._adapted:
                assert self._low_rank is not None
                pulled |= self._low_rank.pull(name, grad)
            else:
                pulled[name] = grad
        return pulled

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Sets the masters, and the network with them. Raises TrainingConfigError where names or shapes differ."""
        ours = {name: tuple(master.shape) for name, master in self.masters.items()}
        theirs = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
        if ours != theirs:
            differing = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
            raise TrainingConfigError(
                "The checkpoint's tensors are not those of this run.",
                why=f"{len(differing)} differ, among them {differing[:3]}",
                fix="Resume with the model and the choice of what to train that the run was started with.",
            )
        for name, master in self.masters.items():
            master.copy_(tensors[name])
        self.publish()

    def merged(self) -> dict[str, Tensor]:
        """Trained parameters under the network's names, in the masters' precision; adapters merged.

        Of a sharded network whole ones, on every rank: all of them must ask.
        """
        low_rank = self._low_rank
        merged = {
            name: low_rank.merged(name) if low_rank is not None and name in self._adapted else self.masters[name]
            for name in self.names
        }
        return merged if self._sharding is None else self._sharding.gathered(merged)


def _static_matrices(net: Transformer) -> list[str]:
    return [
        name for name, p in net.named_parameters() if p.ndim == 2 and name.startswith("blocks.") and "w0_" not in name
    ]
