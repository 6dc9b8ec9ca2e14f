"""`run.json`: what was run on what, and which phases are done."""

from __future__ import annotations

import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

from ttt_training.data.shards import Shards
from ttt_training.errors import TrainingConfigError
from ttt_training.evaluate.about import cpu
from ttt_training.recipes import Phase, Recipe
from ttt_training.trainer import TrainResult

RUN_FILE = "run.json"


class RunNote:
    """The file of one run. Raises TrainingConfigError where the folder holds another."""

    def __init__(self, out: Path, recipe: Recipe, shards: Shards, about: dict[str, Any], *, writes: bool) -> None:
        self._path, self._writes = out / RUN_FILE, writes
        out.mkdir(parents=True, exist_ok=True)
        phases = [
            {"name": p.name, "config": p.config.to_dict(), "training": p.training.to_dict(), "length": p.length}
            | {"memory_share": p.memory_share}
            for p in recipe.phases
        ]
        data = {"key": shards.key, "documents": len(shards), "tokens": shards.tokens}
        self._record: dict[str, Any] = {"recipe": recipe.name, "base": recipe.base, "phases": phases, "data": data}
        if self._path.is_file():
            earlier = read_note(out)
            self._refuse_another(earlier)
            self._record |= {key: earlier[key] for key in ("date", "machine", "about", "done")}
        else:
            machine = {
                "processor": platform.machine(),
                "cpu": cpu(),
                "system": platform.system(),
                "python": platform.python_version(),
                "torch": torch.__version__,
                "threads": torch.get_num_threads(),
                "gpu": torch.cuda.get_device_name() if about.get("device", "").startswith("cuda") else None,
            }
            self._record |= {"date": time.strftime("%Y-%m-%d"), "machine": machine, "about": about, "done": {}}
        self._write()

    def _refuse_another(self, earlier: dict[str, Any]) -> None:
        differing = [key for key in ("recipe", "base", "data") if earlier[key] != self._record[key]]
        done, phases = (
            earlier["done"],
            zip(earlier["phases"], json.loads(json.dumps(self._record["phases"])), strict=False),
        )
        differing += [f"the finished phase {old['name']}" for old, new in phases if old["name"] in done and old != new]
        if differing:
            raise TrainingConfigError(
                "The folder holds another run.", why=f"other: {', '.join(differing)}", fix="Name another --out."
            )

    def is_done(self, phase: Phase) -> bool:
        """Whether a phase ran to its end."""
        return phase.name in self._record["done"]

    def add(self, phase: Phase, result: TrainResult, seconds: float) -> None:
        """Notes how a call of the trainer ended, and how long it took."""
        spent = self._record["about"].setdefault("seconds", {})
        spent[phase.name] = round(spent.get(phase.name, 0.0) + seconds, 1)
        if not result.interrupted:
            self._record["done"][phase.name] = {
                "steps": result.step,
                "tokens": result.tokens,
                "last_loss": result.loss,
                "skipped": result.skipped,
                "seconds": spent[phase.name],
            }
        self._write()

    def _write(self) -> None:
        if not self._writes:
            return
        partial = self._path.with_suffix(".tmp")
        partial.write_text(json.dumps(self._record, indent=1) + "\n", encoding="utf-8")
        partial.replace(self._path)


def read_note(out: Path) -> dict[str, Any]:
    """What the file in a run's folder says. Raises TrainingConfigError if there is none."""
    try:
        record: dict[str, Any] = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingConfigError(f"The folder {out.name!r} holds no run.", why=str(error)) from error
    return record
