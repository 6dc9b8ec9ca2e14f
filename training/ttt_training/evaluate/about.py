"""The head of a result file: when, on what machine, with which versions and by which command it was made."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ttt_memory.model.config import FOLD_VERSION
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.processor import instruction_set
from ttt_training.data.normalise import NORMALISER_VERSION


def head(
    measurement: str, model: LoadedModel, arguments: list[str], *, module: str = "ttt_training.evaluate"
) -> dict[str, Any]:
    """What every result of a `module` begins with; paths of the command line are named from the working directory."""
    command = ["python", "-m", module, *map(_relative, arguments)]
    return {
        "measurement": measurement,
        "command": shlex.join(command),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "model": {"name": model.name, "fingerprint": model.fingerprint, "window": model.config.window},
        "normaliser": NORMALISER_VERSION,
        "fold": FOLD_VERSION,
        "machine": machine(model),
    }


def machine(model: LoadedModel) -> dict[str, Any]:
    """Processor, versions, precision, threads, and how busy the machine is now."""
    return {
        "cpu": cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "isa": instruction_set(),
        "dtype": str(model.compute_dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "load_average": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
    }


def cpu() -> str:
    """Name, and the family and model numbers where a hypervisor hides the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def _relative(argument: str) -> str:
    """Results carry no path of a machine: one outside the working directory keeps its last part alone."""
    path = Path(argument)
    if not path.is_absolute():
        return argument
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else path.name
