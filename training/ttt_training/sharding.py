"""What the ranks of a run hold a part of: the prefix's matrices and the embeddings, at rest and in the optimizer.

FSDP2's own hooks would free, between two passes, weights that a second-order graph still needs. So `fully_shard` is
asked for the storage alone: weights are gathered and let go here, at places that every rank passes equally often,
whatever the shape of its sequence. The suffix, which that graph runs through, is replicated.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ttt_memory.model.transformer import Transformer

_EMBEDDINGS = ("embedding", "head")


@contextmanager
def whole(*modules: nn.Module) -> Iterator[None]:
    """Modules whose own parameters are sharded have them whole inside; nothing happens to others."""
    sharded: list[Any] = [module for module in modules if is_sharded(module)]
    try:
        for module in sharded:
            module.unshard()
        yield
    finally:
        for module in sharded:
            module.reshard()


def is_sharded(module: nn.Module) -> bool:
    """Whether `fully_shard` was called on this module."""
    return hasattr(module, "unshard")


class Sharding:
    """The rows of this rank.

    Sharded parameters of the network become DTensors; `rows` cuts what belongs to them in the same way.

    Args:
        net: changed in place.
        device: of this rank.
        keep: names of parameters that stay whole.

    Attributes:
        names: sharded parameters; none where PyTorch's `fully_shard` cannot leave parameters out.
    """

    def __init__(self, net: Transformer, device: torch.device, *, keep: Collection[str] = ()) -> None:
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        self._device = device
        self.mesh = init_device_mesh(device.type, (dist.get_world_size(),))
        prefix = tuple(f"blocks.{index}." for index in range(net.config.prefix_layers))
        matrices = {name: p for name, p in net.named_parameters() if p.ndim == 2 and name not in keep}
        chosen = {n: p for n, p in matrices.items() if n in _EMBEDDINGS or n.startswith(prefix or ("-",))}
        if "ignored_params" not in inspect.signature(fully_shard).parameters:
            chosen = {}
        self.names = frozenset(chosen)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in chosen.items()}
        shared = set(map(id, chosen.values()))
        net.requires_grad_(False)
        # Blocks first: the network itself then takes what is left, the embeddings.
        for module in (*net.layers()[: net.config.prefix_layers], net):
            if any(id(parameter) in shared for parameter in module.parameters()):
                left = {parameter for parameter in module.parameters() if id(parameter) not in shared}
                fully_shard(module, mesh=self.mesh, reshard_after_forward=True, ignored_params=left)

    def rows(self, name: str, tensor: Tensor) -> Tensor:
        """This rank's rows of a whole tensor that goes with parameter `name`, in storage of their own."""
        if not self._is_cut(name, tensor):
            return tensor
        parts = tensor.chunk(self.mesh.size())  # as fully_shard cuts: the last ranks may have fewer, or none
        rank = self.mesh.get_local_rank()
        return (parts[rank] if rank < len(parts) else tensor[:0]).clone()

    def empty(self, name: str, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Room for this rank's rows of a whole tensor of this shape; counts stay on the CPU, as AdamW has them."""
        own = self.rows(name, torch.empty(shape, dtype=dtype, device="meta")).shape
        return torch.empty(own, dtype=dtype, device=self._device if own else "cpu")

    def shared(self, name: str, tensor: Tensor) -> Tensor:
        """This rank's rows as a DTensor, which knows the whole; other tensors as they are."""
        if not self._is_cut(name, tensor):
            return tensor
        from torch.distributed.tensor import DTensor, Shard

        shape = torch.Size(self.shapes[name])
        made: Tensor = DTensor.from_local(
            tensor, self.mesh, [Shard(0)], run_check=False, shape=shape, stride=(shape[1], 1)
        )
        return made

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors by parameter name, on every rank."""
        found = {name: self.shared(name, tensor) for name, tensor in tensors.items()}
        return {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in found.items()}

    def norm(self, grads: Mapping[str, Tensor]) -> float:
        """Global norm of gradients of which this rank has its rows."""
        device = next(iter(grads.values())).device
        squares = torch.zeros(2, dtype=torch.float64, device=device)
        for name, grad in grads.items():
            squares[int(name in self.names)] += torch.linalg.vector_norm(grad).double() ** 2
        cut = squares[1].clone()
        dist.all_reduce(cut)
        return float((squares[0] + cut).sqrt())

    def _is_cut(self, name: str, tensor: Tensor) -> bool:
        return name in self.names and tensor.ndim == 2


def local(parameter: Tensor) -> Tensor:
    """This rank's rows of a sharded parameter; other parameters as they are. Written, they change the parameter."""
    to_local = getattr(parameter, "to_local", None)
    return parameter if to_local is None else to_local()
