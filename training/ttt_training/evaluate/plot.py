"""Loss by position as a picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ttt_memory.errors import MissingExtraError
from ttt_training.evaluate.compare import BIN


def require_matplotlib() -> None:
    """Raises MissingExtraError where matplotlib is not installed: to be asked before hours of measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", extra="bench", needed_for="Drawing the comparison")


def draw(found: Mapping[str, Any], out: Path) -> None:
    """Two panels: the loss of every name by position, and how far it is below the first name's.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require_matplotlib()
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    results = found["results"]
    first = next(iter(results))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    for index, (name, result) in enumerate(results.items()):
        places = (np.arange(len(result["bins"])) + 0.5) * BIN
        left.plot(places, result["bins"], f".-C{index}", label=f"{name}: {result['mean']:.3f}")
        if name != first:
            right.plot(places, np.subtract(results[first]["bins"], result["bins"]), f".-C{index}", label=name)
    right.axhline(0, color="grey", linewidth=0.8)
    left.set(title="nats per token", xlabel="tokens read")
    right.set(title=f"below {first} (higher is better)", xlabel="tokens read")
    for axis in (left, right):
        axis.legend(frameon=False, fontsize=8)
    documents = len(results[first]["documents"])
    figure.suptitle(f"{found['model']['name']}, {documents} documents, {found['date']}", fontsize=9)
    figure.savefig(out, dpi=100)
    plt.close(figure)
