"""Which run a folder holds: a checkpoint is resumed by the run that wrote it and by no other."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import torch

from ttt_memory.model.transformer import Transformer
from ttt_training.config import TrainConfig
from ttt_training.errors import TrainingConfigError

_MAY_CHANGE = ("every", "memory_gb", "checkpoint_steps", "checkpoint_minutes")
"""Settings that the result does not depend on."""


def identity_of(net: Transformer, config: TrainConfig, tokenizer: str) -> dict[str, Any]:
    """What a run is: JSON-able, kept in every checkpoint."""
    return {"config": config.to_dict(), "net": network_digest(net), "tokenizer": tokenizer}


def require_same_run(meta: dict[str, Any], identity: dict[str, Any], out: Path) -> None:
    """Raises TrainingConfigError unless the checkpoint is of this run."""
    ours, theirs = _lasting(identity["config"]), _lasting(dict(meta.get("config") or {}))
    settings = sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name))
    names = [name for name in ("net", "tokenizer") if meta.get(name) != identity[name]]
    if settings or names:
        raise TrainingConfigError(
            f"{out} holds another run.",
            why="; ".join(f"another {name}" for name in (*names, *settings)),
            fix="Resume with the same model and settings, or name another folder.",
        )


def network_digest(net: Transformer) -> str:
    """SHA-256 over names, dtypes and bytes of a network's parameters."""
    sha = hashlib.sha256()
    for name, parameter in net.named_parameters():
        data = parameter.detach().cpu().contiguous()
        sha.update(f"{name}:{data.dtype}:{tuple(data.shape)};".encode())
        sha.update(data.view(-1).view(torch.uint8).numpy().data.cast("B"))
    return sha.hexdigest()


def _lasting(config: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in _MAY_CHANGE}
