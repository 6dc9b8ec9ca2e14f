"""Trained weights, as parameters of the network: a file of them, a shipped file, or what a run has kept so far."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.initialisation import FORMAT, read_initialisation
from ttt_memory.model.loaded import LoadedModel
from ttt_training.checkpoints import Checkpoint, load_latest
from ttt_training.lora import DOWN
from ttt_training.trainer import CHECKPOINTS, FINAL_FILE
from ttt_training.weights import unpacked


@dataclass(frozen=True)
class WeightsFile:
    """What training changed.

    Attributes:
        name: of the file or folder, for people.
        tensors: by the network's parameter names; everything else is the base model's.
        config: the configuration they were trained under; None where that is not written down: the base model's.
        sha256: over names and values.
    """

    name: str
    tensors: dict[str, Tensor]
    config: ModelConfig | None
    sha256: str


def load_weights(path: Path, base: LoadedModel) -> WeightsFile:
    """Trained parameters.

    Args:
        path: a run's folder (its newest checkpoint), its `final.safetensors`, a learned initialisation as shipped, or
            any safetensors file of parameters by the network's names.
        base: the model that training started from.

    Raises:
        ModelFormatError: there are no weights, they cannot be read, or they were shipped for another base.
    """
    try:
        tensors, config = _of_run(path) if path.is_dir() else _of_file(path, base)
    except (SafetensorError, OSError) as error:
        raise ModelFormatError(f"Cannot read the weights {path.name}.", why=str(error)) from error
    return WeightsFile(path.resolve().name, tensors, config, _digest(tensors))


def _of_file(path: Path, base: LoadedModel) -> tuple[dict[str, Tensor], ModelConfig | None]:
    with safe_open(path, framework="pt") as file:
        shipped = (file.metadata() or {}).get("format") == FORMAT
    if shipped:
        initialisation = read_initialisation(path)
        return unpacked(base.net, initialisation), initialisation.config
    run = load_latest(path.parent / CHECKPOINTS) if path.name == FINAL_FILE else None
    return load_file(path), _config(run)


def _of_run(folder: Path) -> tuple[dict[str, Tensor], ModelConfig | None]:
    phases = [folder] if (folder / CHECKPOINTS).is_dir() else sorted(p.parent for p in folder.glob(f"*/{CHECKPOINTS}"))
    kept = load_latest(phases[0] / CHECKPOINTS) if len(phases) == 1 else None
    if kept is None:
        why = f"it has {len(phases)} folders of checkpoints" if phases else "it has no checkpoints"
        raise ModelFormatError(f"{folder.name} is not the folder of one run.", why=why, fix="Give a run's folder.")
    tensors = kept.part("param")
    if any(name.endswith(f"/{DOWN}") for name in tensors):
        # Adapters are merged with their base only where the run wrote its final parameters.
        tensors = load_file(phases[0] / FINAL_FILE)
    return tensors, _config(kept)


def _config(run: Checkpoint | None) -> ModelConfig | None:
    return ModelConfig.from_dict(run.meta["model"]) if run is not None and "model" in run.meta else None


def _digest(tensors: Mapping[str, Tensor]) -> str:
    sha = hashlib.sha256()
    for name in sorted(tensors):
        sha.update(f"{name}:{tuple(tensors[name].shape)};".encode())
        sha.update(tensors[name].detach().float().contiguous().numpy().tobytes())
    return sha.hexdigest()
