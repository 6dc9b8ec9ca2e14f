"""The machine a number was measured on, as it goes into every result."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shlex
import sys
from pathlib import Path
from typing import Any

import psutil
import torch

from ttt_memory.lane import backend, lane_for
from ttt_memory.model.loaded import LoadedModel


def describe(model: LoadedModel) -> dict[str, Any]:
    """Processor, memory, versions, the threads used, and how busy the machine was when the measurement began."""
    lane = lane_for(sum(parameter.numel() for parameter in model.net.parameters()))
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "llama_cpp_python": _version("llama-cpp-python"),
        "load_average_at_start": [round(load, 2) for load in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        **backend(lane, str(model.compute_dtype).removeprefix("torch.")),
    }


def result(measurement: str, model: LoadedModel, settings: dict[str, Any]) -> dict[str, Any]:
    """The head of a result file. Also fixes PyTorch's threads to those of the compute lane."""
    about = describe(model)
    torch.set_num_threads(int(about["threads"]))
    return {
        "measurement": measurement,
        "command": shlex.join(
            ["python", Path(sys.argv[0]).parent.name + "/" + Path(sys.argv[0]).name, *map(_relative, sys.argv[1:])]
        ),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "model": {"name": model.name, "fingerprint": model.fingerprint},
        "machine": about,
        "settings": settings,
    }


def _cpu() -> str:
    """Name, and the family and model numbers where a hypervisor hides the name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
        return f"{fields['model name']} (family {fields['cpu family']}, model {fields['model']})"
    except (OSError, KeyError):
        return platform.processor() or platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _relative(argument: str) -> str:
    """A path inside the repository as it is named from there: results carry no path of a machine."""
    root = Path(__file__).parents[1]
    path = Path(argument)
    return str(path.relative_to(root)) if path.is_absolute() and path.is_relative_to(root) else argument
