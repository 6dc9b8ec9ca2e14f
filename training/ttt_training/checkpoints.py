"""Checkpoints of a run: a folder each, complete or absent.

`step-00000120/` holds `meta.json` and the tensors: `state.safetensors`, or a file of every rank that wrote its part
(`sharded_checkpoints`). The meta names the SHA-256 of each. A checkpoint is written under another name, synced and
renamed, so that a killed process leaves the previous one and never half of one.
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

from ttt_training import sharded_checkpoints

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
    work = begin(folder, step, str(os.getpid()))
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, work / _STATE)
    return finish(folder, step, work, {**meta, "sha256": digests(work)[_STATE]})


def begin(folder: Path, step: int, writer: str) -> Path:
    """An empty folder for a checkpoint in the making."""
    work = unfinished(folder, step, writer)
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    return work


def unfinished(folder: Path, step: int, writer: str) -> Path:
    """Where a writer makes a checkpoint."""
    return folder / f"{_UNFINISHED}{step:08d}-{writer}"


def finish(folder: Path, step: int, work: Path, meta: Mapping[str, Any]) -> Path:
    """Gives a checkpoint that `work` holds the tensors of its meta and its name; removes all but the last two."""
    target = folder / f"{_PREFIX}{step:08d}"
    (work / _META).write_text(json.dumps({**meta, "step": step}, indent=1, sort_keys=True), encoding="utf-8")
    for path in (*work.iterdir(), work):
        _sync(path)
    if target.exists():
        shutil.rmtree(target)
    work.rename(target)
    _sync(folder)
    for old in _finished(folder)[:-KEEP]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def digests(work: Path) -> dict[str, str]:
    """SHA-256 of every file of tensors, as the meta of a sharded checkpoint has them under `files`."""
    found = {}
    for path in sorted(work.glob(sharded_checkpoints.FILES)):
        with path.open("rb") as file:
            found[path.name] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Writes one safetensors file, which is complete or not there."""
    work = path.with_name(f".{path.name}-{os.getpid()}")
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, work)
    _sync(work)
    work.replace(path)
    _sync(path.parent)


def find_latest(folder: Path) -> tuple[Path, dict[str, Any]] | None:
    """Folder and meta of the newest checkpoint whose bytes are what was written; None if there is none."""
    for candidate in reversed(_finished(folder)):
        try:
            meta: dict[str, Any] = json.loads((candidate / _META).read_text(encoding="utf-8"))
            written = meta["files"] if is_sharded(meta) else {_STATE: meta["sha256"]}
            if digests(candidate) == written and int(meta["step"]) >= 0:
                return candidate, meta
        except (OSError, ValueError, KeyError):
            continue
    return None


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is sound, with whole tensors whoever wrote it; None if there is none."""
    found = find_latest(folder)
    return None if found is None else load(*found)


def load(path: Path, meta: dict[str, Any]) -> Checkpoint:
    """A checkpoint that `find_latest` found."""
    tensors = sharded_checkpoints.read(path) if is_sharded(meta) else load_file(path / _STATE)
    return Checkpoint(int(meta["step"]), tensors, meta)


def is_sharded(meta: Mapping[str, Any]) -> bool:
    """Whether the ranks wrote their parts."""
    return "files" in meta


def clean(folder: Path) -> None:
    """Removes what killed processes left behind."""
    for path in folder.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(path, ignore_errors=True)


def _finished(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob(f"{_PREFIX}*") if path.is_dir()) if folder.is_dir() else []


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
