"""Outputs of a frozen prefix, kept on disk: runs that read the same sequences compute them once.

A control at three rates, or runs that differ in the inner rule, read the same tokens through the same frozen blocks.
What comes out is kept by what went in, one file for every pass over a text. A network, versions or a thread count that
could change one bit have a folder of their own.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttt_memory.model.processor import instruction_set
from ttt_memory.model.transformer import Transformer
from ttt_training.errors import TrainingConfigError
from ttt_training.passes import Step

_NOT_OF_THE_PREFIX = (
    *("layers", "dynamic_layers", "dynamic_mlp", "inner"),
    *("segment_tokens", "context_tokens", "append_context_tokens"),  # what they cut is in the name of the file
)
"""The network's other settings decide its bits; one added later does until it is named here."""
_NAME = "x"


class KeptPrefix:
    """A folder of them, for one network."""

    def __init__(self, folder: Path, net: Transformer) -> None:
        """Raises TrainingConfigError where nothing can be written to `folder`."""
        self._folder, self._device = folder / prefix_identity(net)[:16], net.embedding.device
        self._full = False
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise TrainingConfigError(f"Cannot keep the prefix's outputs in {folder}.", why=str(error)) from error

    def find(self, steps: Sequence[Step]) -> list[Tensor] | None:
        """[1, n, D] for every step, bit for bit what `Prefix.read` gave; None unless every pass is there."""
        found: list[Tensor] = []
        missing = False
        for one in _passes(steps):
            path = self._path(one)
            try:
                whole = load_file(path, device=str(self._device))[_NAME]
            except FileNotFoundError:
                missing = True
            except SafetensorError:  # damaged: made again
                path.unlink(missing_ok=True)
                missing = True
            else:
                found += torch.split(whole, [len(step.inputs) for step in one], dim=1)
        return None if missing else found

    def add(self, steps: Sequence[Step], outputs: Sequence[Tensor]) -> None:
        """Keeps `outputs`, [1, n, D] for every step. Without room it warns and keeps nothing more: the run goes on."""
        begin = 0
        for one in _passes(steps):
            path, tensors = self._path(one), outputs[begin : begin + len(one)]
            begin += len(one)
            if self._full or path.exists():
                continue
            partial = path.with_suffix(f".{os.getpid()}.part")
            try:
                save_file({_NAME: torch.cat(list(tensors), 1).cpu().contiguous()}, partial)
                partial.replace(path)
            except (OSError, SafetensorError) as error:
                partial.unlink(missing_ok=True)
                self._full = True
                warnings.warn(f"The prefix's outputs are no longer kept in {self._folder}: {error}", stacklevel=2)

    def _path(self, one: Sequence[Step]) -> Path:
        sha = hashlib.sha256()
        for step in one:  # where a pass is cut into steps decides the order of sums
            sha.update(f"{len(step.inputs)};".encode())
            sha.update(step.inputs.cpu().numpy().astype("<i8").data.cast("B"))
        return self._folder / f"{sha.hexdigest()[:32]}.safetensors"


def _passes(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps that share a cache."""
    passes: list[list[Step]] = []
    for step in steps:
        if step.opens:
            passes.append([])
        passes[-1].append(step)
    return passes


def prefix_identity(net: Transformer) -> str:
    """Digest of all that decides a bit of the prefix's outputs."""
    tensors = net.state_dict()
    blocks = tuple(f"blocks.{index}." for index in range(net.config.prefix_layers))
    cpu = f"{platform.machine()} {instruction_set()}"
    about = {
        **{name: value for name, value in net.config.to_dict().items() if name not in _NOT_OF_THE_PREFIX},
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if net.embedding.is_cuda else cpu,
        "threads": torch.get_num_threads(),
    }
    sha = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for name in sorted(name for name in tensors if name == "embedding" or name.startswith(blocks)):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)};".encode())
        sha.update(tensor.view(torch.uint8).numpy().data.cast("B"))
    return sha.hexdigest()
