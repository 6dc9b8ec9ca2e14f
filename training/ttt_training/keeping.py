"""A run's checkpoints, whoever writes them: one process whole tensors, the ranks of a group each its part."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from ttt_training import checkpoints, sharded_checkpoints
from ttt_training.optimizer import Optimizer
from ttt_training.sharding import Sharding
from ttt_training.trained import Trained

if TYPE_CHECKING:
    from ttt_training.distributed import Group

_PARAM, _ADAM = "param", "adam"


class Keeper:
    """Writes and reads the masters and moments of one run.

    Args:
        folder: of the checkpoints.
        trained, optimizer: what is kept.
        group, sharding: of a distributed run: its ranks, and what each holds.
    """

    def __init__(
        self, folder: Path, trained: Trained, optimizer: Optimizer, group: Group | None, sharding: Sharding | None
    ) -> None:
        self._folder, self._trained, self._optimizer = folder, trained, optimizer
        self._group, self._sharding = group, sharding

    def save(self, step: int, meta: Mapping[str, Any]) -> None:
        """Writes a checkpoint; of a group, every rank calls it."""
        kept = {f"{_PARAM}/{name}": master for name, master in self._trained.masters.items()}
        kept |= {f"{_ADAM}/{name}": moment for name, moment in self._optimizer.state().items()}
        tensors = {key: self._shared(_name(key), tensor) for key, tensor in kept.items()}
        if self._group is None:
            checkpoints.save(self._folder, step, tensors, meta)
        elif sharded_checkpoints.available():
            self._save_parts(self._group, step, tensors, meta)
        else:
            gathered = {name: t.full_tensor() if hasattr(t, "full_tensor") else t for name, t in tensors.items()}
            if self._group.first:
                checkpoints.save(self._folder, step, gathered, meta)
            self._group.wait()

    def _save_parts(self, group: Group, step: int, tensors: Mapping[str, Tensor], meta: Mapping[str, Any]) -> None:
        work = checkpoints.unfinished(self._folder, step, "ranks")
        if group.first:
            checkpoints.begin(self._folder, step, "ranks")
        group.wait()
        sharded_checkpoints.write(work, tensors)
        group.wait()
        if group.first:
            files = checkpoints.digests(work)
            checkpoints.finish(self._folder, step, work, {**meta, "files": files, "ranks": group.world})
        group.wait()

    def load(self, kept: tuple[Path, dict[str, Any]]) -> None:
        """Fills in masters and moments from a checkpoint that `find` gave. Raises as `Trained.load`."""
        path, meta = kept
        if self._sharding is not None and checkpoints.is_sharded(meta):
            tensors = self._read_rows(path, self._sharding)
        else:
            tensors = {key: self._rows(_name(key), t) for key, t in checkpoints.load(path, meta).tensors.items()}
        found = checkpoints.Checkpoint(int(meta["step"]), tensors, meta)
        self._trained.load(found.part(_PARAM))
        self._optimizer.load(found.part(_ADAM))

    def _read_rows(self, path: Path, sharding: Sharding) -> dict[str, Tensor]:
        """No rank has more than its rows in memory, whoever wrote them."""
        kinds = sharded_checkpoints.contents(path).items()
        rows = {key: sharding.empty(_name(key), shape, dtype) for key, (shape, dtype) in sorted(kinds)}
        sharded_checkpoints.read_rows(path, {key: sharding.shared(_name(key), t) for key, t in rows.items()})
        return rows

    def _shared(self, name: str, tensor: Tensor) -> Tensor:
        return tensor if self._sharding is None else self._sharding.shared(name, tensor)

    def _rows(self, name: str, tensor: Tensor) -> Tensor:
        return tensor if self._sharding is None else self._sharding.rows(name, tensor)


def _name(key: str) -> str:
    """The master's name in `param/NAME` or `adam/NAME/MOMENT`."""
    part, _, name = key.partition("/")
    return name if part == _PARAM else name.rpartition("/")[0]


def find(folder: Path, group: Group | None) -> tuple[Path, dict[str, Any]] | None:
    """The newest sound checkpoint; of a group, the one that its first rank finds."""
    found = checkpoints.find_latest(folder) if group is None or group.first else None
    if group is None:
        return found
    said = json.loads(group.told(json.dumps(None if found is None else [found[0].name, found[1]])))
    return None if said is None else (folder / said[0], said[1])
