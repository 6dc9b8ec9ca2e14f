"""Curves beside `log.jsonl`: TensorBoard where it is installed, Weights & Biases where it is asked for."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from ttt_memory.errors import MissingExtraError

WANDB_FILE = "wandb-run.txt"


class Board(Protocol):
    """Takes numbers by step."""

    def add(self, record: Mapping[str, Any]) -> None:
        """One outer step; `record["step"]` counts from 1."""

    def close(self) -> None:
        """Flushes what was taken."""


def boards(out: Path, *, wandb: str | None = None) -> list[Board]:
    """The boards of the run in `out`; `wandb` names a project. Raises MissingExtraError without the package."""
    found: list[Board] = [_TensorBoard(out)] if find_spec("tensorboard") is not None else []
    return found if wandb is None else [*found, _WeightsAndBiases(out, wandb)]


def require_wandb() -> None:
    """Raises MissingExtraError if the package is not installed."""
    if find_spec("wandb") is None:
        raise MissingExtraError("wandb", extra="wandb", needed_for="--wandb")


class _TensorBoard:
    def __init__(self, out: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer: Any = SummaryWriter(str(out / "tensorboard"))

    def add(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers(record).items():
            self._writer.add_scalar(name, value, record["step"])

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """A run of the project that goes on when the training does. WANDB_MODE (offline, disabled) is wandb's own."""

    def __init__(self, out: Path, project: str) -> None:
        require_wandb()
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its crash reports are not what was asked for
        import wandb

        known = out / WANDB_FILE
        if not known.is_file():
            known.write_text(uuid.uuid4().hex[:12] + "\n", encoding="utf-8")
        name = f"{out.parent.name}/{out.name}"
        identity = known.read_text(encoding="utf-8").strip()
        self._run: Any = wandb.init(project=project, name=name, id=identity, resume="allow", dir=str(out))

    def add(self, record: Mapping[str, Any]) -> None:
        self._run.log(_numbers(record), step=int(record["step"]))

    def close(self) -> None:
        self._run.finish()


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in record.items() if name != "step" and isinstance(value, int | float)}
