"""Trained weights as they are shipped: the change of W0 in int8 rows, inner rates and norms whole, in one small file.

`ttt_memory.model.initialisation` has the format and reads it. What quantising costs is the difference between two
evaluations: of the run's own `final.safetensors`, and of the parameters that `unpacked` takes back out of the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.initialisation import (
    FORMAT,
    LEVELS,
    SCALE,
    Initialisation,
    initialised,
    pack,
    read_initialisation,
    reshaped,
    static_digest,
)
from ttt_memory.model.transformer import Transformer


def export(
    base: Transformer,
    trained: Mapping[str, Tensor],
    out: Path,
    *,
    name: str,
    base_name: str,
    config: ModelConfig,
    training: Mapping[str, Any],
) -> Initialisation:
    """Writes a learned initialisation, whole or not at all, and reads it back.

    Args:
        base: the network that training started from, as `load_model` gives it.
        trained: parameters by the network's names, fp32: a run's `final.safetensors`.
        out: the file; its folder is made.
        name: what a model with it is called.
        base_name: the published name of the base, or what it is called.
        config: the configuration of the run.
        training: JSON-able: recipe, tokens, date, hardware, licence of the data ... for the model card.

    Raises:
        ModelFormatError: the parameters do not fit the base or are not finite.
    """
    start = dict(reshaped(base, config).state_dict())
    tensors: dict[str, Tensor] = {}
    for key, value in sorted(trained.items()):
        old = start.get(key)
        if old is None or old.shape != value.shape:
            raise ModelFormatError(f"The base model has no {key!r} of shape {list(value.shape)}.", name=key)
        if not bool(torch.isfinite(value).all()):
            raise ModelFormatError(f"{key} is not finite.", fix="Export an earlier checkpoint.", name=key)
        change = value.detach().cpu().float() - old.float()
        if not bool(change.any()):
            continue
        if value.ndim == 1:
            tensors[key] = value.detach().cpu().float().contiguous()
        else:
            tensors[f"{key}/{LEVELS}"], tensors[f"{key}/{SCALE}"] = pack(change)
    metadata = {
        "format": FORMAT,
        "name": name,
        "base": base_name,
        "base_sha256": static_digest(base),
        "config": json.dumps(config.to_dict()),
        "training": json.dumps(dict(training)),
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.{os.getpid()}")
    try:
        partial.touch()
        mode = partial.stat().st_mode  # what the user's umask gives; safetensors would leave it to its owner alone
        save_file(tensors, partial, metadata=metadata)
        partial.chmod(mode)
        initialised(base, read_initialisation(partial))
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return read_initialisation(out)


def load_trained(path: Path) -> dict[str, Tensor]:
    """Parameters of a run's `final.safetensors`. Raises ModelFormatError if the file cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"Cannot read the trained weights {path.name}.", why=str(error)) from error


def unpacked(base: Transformer, initialisation: Initialisation) -> dict[str, Tensor]:
    """The parameters that a learned initialisation sets, as a base with it computes with them."""
    net = initialised(base, initialisation)
    changed = {key.partition("/")[0] for key in initialisation.tensors()}
    return {name: tensor for name, tensor in net.state_dict().items() if name in changed}


def relative_error(base: Transformer, trained: Mapping[str, Tensor], initialisation: Initialisation) -> float:
    """L2 error of the quantised matrices as a share of what training changed in them."""
    start = dict(reshaped(base, initialisation.config).state_dict())
    found = {name: tensor for name, tensor in unpacked(base, initialisation).items() if tensor.ndim == 2}
    error = sum(float((trained[name].float() - tensor.float()).pow(2).sum()) for name, tensor in found.items())
    change = sum(float((trained[name].float() - start[name].float()).pow(2).sum()) for name in found)
    return (error / change) ** 0.5 if change else 0.0
