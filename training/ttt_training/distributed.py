"""Data-parallel outer steps under torchrun: every rank reads its own sequences, and all take the same step.

DDP and FSDP free or hook parameters that a second-order graph still needs. So outer gradients are averaged here, after
the adjoint is done with them; which tensors a rank holds a part of is said in `sharding`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ttt_memory.model.transformer import Transformer
from ttt_training.errors import TrainingConfigError
from ttt_training.sharding import Sharding


class Group:
    """The ranks of one run. Use `joined` to make one."""

    def __init__(self, device: torch.device) -> None:
        self.rank, self.world, self.device = dist.get_rank(), dist.get_world_size(), device

    @property
    def first(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def average(
        self,
        loss: float,
        tokens: int,
        grads: dict[str, Tensor],
        names: Iterable[str],
        net: Transformer,
        sharding: Sharding,
    ) -> tuple[float, int, dict[str, Tensor]]:
        """Mean loss, sum of tokens and mean gradients over the ranks; of sharded parameters this rank's rows.

        Args:
            loss, tokens, grads: of this rank; parameters without a gradient count as zero. `grads` is emptied.
            names, net: the parameters that are differentiated, in an order that all ranks share, and their network.
            sharding: which of them are sharded.
        """
        numbers = torch.tensor([loss / self.world, float(tokens)], dtype=torch.float64, device=self.device)
        dist.all_reduce(numbers)
        mean: dict[str, Tensor] = {}
        parameters = dict(net.named_parameters())
        for name in names:
            grad, like = grads.pop(name, None), parameters[name]
            if grad is None:
                wide = torch.promote_types(like.dtype, torch.float32)
                grad = torch.zeros(like.shape, dtype=wide, device=like.device)
            dist.all_reduce(grad)
            mean[name] = sharding.rows(name, grad.div_(self.world))
        return float(numbers[0]), int(numbers[1]), mean

    def any(self, flag: bool) -> bool:
        """Whether any rank says so; all ranks get the same answer."""
        found = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(found, op=dist.ReduceOp.MAX)
        return bool(found)

    def told(self, value: str) -> str:
        """What the first rank says, on every rank."""
        said = [value]
        dist.broadcast_object_list(said, src=0, device=self.device)
        return said[0]

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
