"""Data-parallel outer steps under torchrun: every rank reads its own sequences, and all take the same step.

DDP and FSDP free or hook parameters that a second-order graph still needs. So what is trained is replicated and its
outer gradients are averaged here, after the adjoint is done with them; the frozen prefix, which the adjoint only reads
forward, is sharded with `fully_shard` and gathered block by block. The embedding stays whole on every rank: tied, it is
also the head that every mini-batch is differentiated through.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ttt_memory.model.transformer import Transformer
from ttt_training.errors import TrainingConfigError


class Group:
    """The ranks of one run. Use `joined` to make one."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world, self.device = dist.get_rank(), dist.get_world_size(), device

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def average(
        self, loss: float, tokens: int, grads: Mapping[str, Tensor], names: Iterable[str], net: Transformer
    ) -> tuple[float, int, dict[str, Tensor]]:
        """Mean loss, sum of tokens and mean gradients over the ranks.

        Args:
            loss, tokens, grads: of this rank; parameters without a gradient count as zero.
            names, net: the parameters that are differentiated, in an order that all ranks share, and their network.
        """
        numbers = torch.tensor([loss / self.world, float(tokens)], dtype=torch.float64, device=self.device)
        dist.all_reduce(numbers)
        mean: dict[str, Tensor] = {}
        parameters = dict(net.named_parameters())
        for name in names:
            found, like = grads.get(name), parameters[name]
            grad = (
                torch.zeros_like(like, dtype=torch.promote_types(like.dtype, torch.float32)) if found is None else found
            )
            dist.all_reduce(grad)
            mean[name] = grad.div_(self.world)
        return float(numbers[0]), int(numbers[1]), mean

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; all ranks get the same answer."""
        found = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return bool(found)

    def wait(self) -> None:
        """Returns when every rank is here."""
        self.any(False)

    def require_same(self, what: str, value: str) -> None:
        """Raises TrainingConfigError on every rank if the ranks hold different values."""
        every: list[Any] = [None] * self.world
        dist.all_gather_object(every, value)
        if len(set(every)) > 1:
            raise TrainingConfigError(
                f"The ranks do not agree on {what}.",
                why=f"there are {len(set(every))} different ones",
                fix="Start every rank with the same command, data and model.",
            )

    def shard_frozen(self, net: Transformer, trained: Iterable[str]) -> int:
        """Shards the prefix blocks that are not trained, in place; returns how many."""
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

        names = tuple(trained)
        mesh = init_device_mesh(self.device.type, (self.world,))
        sharded = 0
        for index, block in enumerate(net.layers()[: net.config.prefix_layers]):
            if any(name.startswith(f"blocks.{index}.") for name in names):
                continue
            for parameter in block.parameters():
                parameter.requires_grad_(False)
            fully_shard(block, mesh=mesh, reshard_after_forward=True)
            for method in ("attend", "static"):
                register_fsdp_forward_method(block, method)
            sharded += 1
        return sharded


@contextmanager
def joined(device: str = "cpu") -> Iterator[Group | None]:
    """The group that torchrun started this process in; None where there is only one process.

    On CUDA every process takes the device of its local rank. Raises TrainingConfigError if the group cannot be formed.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield None
        return
    cuda = device.startswith("cuda")
    local = torch.device(f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if cuda else "cpu")
    if cuda:
        torch.cuda.set_device(local)
    try:
        dist.init_process_group("nccl" if cuda else "gloo")
    except (RuntimeError, ValueError) as error:
        raise TrainingConfigError(
            "The ranks cannot find each other.", why=str(error), fix="Start them with torchrun."
        ) from error
    try:
        yield Group(local)
    finally:
        dist.destroy_process_group()
