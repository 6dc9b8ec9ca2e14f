"""Checkpoints that every rank writes its own part of: `torch.distributed.checkpoint`, its tensors in safetensors files.

PyTorch's Hugging Face storage writes nothing but safetensors, whose headers say which rows a file holds; no file has a
pickle in it. (Its ranks agree on who writes what through `torch.distributed`'s objects, in memory.) A tensor that all
ranks hold is written by one of them.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ttt_memory.errors import ModelFormatError

FILES = "*.safetensors"


def available() -> bool:
    """Whether this PyTorch has the storage; with an older one the first rank writes whole tensors instead."""
    return _storage() is not None


def write(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes this rank's part of `tensors` into a folder; every rank calls it with the same names.

    Args:
        folder: there already, and seen by every rank.
        tensors: DTensors, of which each rank writes its rows, and tensors that are the same on every rank.
    """
    from torch.distributed.checkpoint.state_dict_saver import save

    storage = _require()
    kept: dict[str, Any] = {name: tensor.detach() for name, tensor in tensors.items()}
    with _alone_is_fine():
        save(kept, storage_writer=storage.HuggingFaceStorageWriter(str(folder), save_distributed=True))


def read(folder: Path) -> dict[str, Tensor]:
    """Whole tensors, read by this process alone.

    Raises ModelFormatError where this PyTorch cannot read them, OSError or a SafetensorError for damaged files.
    """
    kept = {name: torch.empty(shape, dtype=dtype) for name, (shape, dtype) in contents(folder).items()}
    _fill(folder, kept, alone=True)
    return kept


def read_rows(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """Fills in `tensors`, of DTensors this rank's rows alone; every rank calls it with the same names."""
    _fill(folder, tensors, alone=False)


def contents(folder: Path) -> dict[str, tuple[torch.Size, torch.dtype]]:
    """Shape of the whole, and type, of every tensor. Raises as `read`."""
    reader = _require().HuggingFaceStorageReader(str(folder))
    found = reader.read_metadata().state_dict_metadata
    return {name: (about.size, about.properties.dtype) for name, about in found.items()}


def _fill(folder: Path, tensors: Mapping[str, Tensor], *, alone: bool) -> None:
    from torch.distributed.checkpoint.state_dict_loader import load

    kept: dict[str, Any] = dict(tensors)
    with _alone_is_fine():
        load(kept, storage_reader=_require().HuggingFaceStorageReader(str(folder)), no_dist=alone)


@contextmanager
def _alone_is_fine() -> Iterator[None]:
    """Without PyTorch's warning that there is one process only."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "torch.distributed is disabled")
        yield


def _storage() -> Any:
    try:
        from torch.distributed.checkpoint import hf_storage
    except ImportError:
        return None
    options = inspect.signature(hf_storage.HuggingFaceStorageWriter).parameters
    return hf_storage if "save_distributed" in options else None


def _require() -> Any:
    storage = _storage()
    if storage is None:
        raise ModelFormatError(
            "This checkpoint was written by several ranks; this PyTorch cannot read it.",
            why=f"PyTorch {torch.__version__} has no torch.distributed.checkpoint.HuggingFaceStorageReader",
            fix="Use a newer PyTorch.",
        )
    return storage
