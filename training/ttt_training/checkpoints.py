"""Checkpoints of a run: a folder each, complete or absent.

`step-00000120/` holds `state.safetensors` and `meta.json`, which names the tensors' SHA-256. It is written under
another name, synced and renamed, so that a killed process leaves the previous checkpoint and never half of one.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

KEEP = 2
_STATE, _META, _PREFIX, _UNFINISHED = "state.safetensors", "meta.json", "step-", ".unfinished-"


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read back.

    Attributes:
        step: outer steps done.
        tensors: `param/<name>` (fp32 masters) and `adam/<name>/<moment>`.
        meta: the run's configuration and position.
    """

    step: int
    tensors: dict[str, Tensor]
    meta: dict[str, Any]

    def part(self, name: str) -> dict[str, Tensor]:
        """Tensors under `name/`, without it."""
        return {key.removeprefix(f"{name}/"): t for key, t in self.tensors.items() if key.startswith(f"{name}/")}


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> Path:
    """Writes a checkpoint, syncs it to disk, then removes all but the last two. Returns its folder."""
    folder.mkdir(parents=True, exist_ok=True)
    target, work = folder / f"{_PREFIX}{step:08d}", folder / f"{_UNFINISHED}{step:08d}-{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, work / _STATE)
    values = {**meta, "step": step, "sha256": _digest(work / _STATE)}
    (work / _META).write_text(json.dumps(values, indent=1, sort_keys=True), encoding="utf-8")
    for path in (work / _STATE, work / _META, work):
        _sync(path)
    if target.exists():
        shutil.rmtree(target)
    work.rename(target)
    _sync(folder)
    for old in _finished(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes one safetensors file, which is complete or not there."""
    work = path.with_name(f".{path.name}-{os.getpid()}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, work)
    _sync(work)
    work.replace(path)
    _sync(path.parent)


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint whose bytes are what was written; None if there is none."""
    for candidate in reversed(_finished(folder)):
        try:
            meta = json.loads((candidate / _META).read_text(encoding="utf-8"))
            if _digest(candidate / _STATE) == meta["sha256"]:
                return Checkpoint(int(meta["step"]), load_file(candidate / _STATE), meta)
        except (OSError, ValueError, KeyError):
            continue
    return None


def clean(folder: Path) -> None:
    """Removes what killed processes left behind."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir()) if folder.is_dir() else []


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
