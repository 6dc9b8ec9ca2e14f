"""A finished run as the small file that a memory opens."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from safetensors.torch import save_file

from ttt_memory.model.initialisation import Initialisation
from ttt_memory.model.registry import load_model
from ttt_training.errors import TrainingConfigError
from ttt_training.planning import logged_seconds
from ttt_training.run_note import read_note
from ttt_training.trainer import FINAL_FILE
from ttt_training.weights import export, load_trained, relative_error, unpacked


@dataclass(frozen=True)
class Exported:
    """A learned initialisation, and the L2 error of its rounding as a share of what training changed."""

    initialisation: Initialisation
    error: float


def export_run(
    out: Path,
    file: Path,
    *,
    name: str,
    plain: Path | None = None,
    decay: float | None = None,
    licence: str = "Apache-2.0",
) -> Exported:
    """A finished run as a learned initialisation, with what `run.json` says of it.

    Args:
        out: the run's folder.
        file: what is written.
        name: what a model with it is called.
        plain: also write the parameters as they come back out of the file, for `ttt_training.evaluate --weights`.
        decay: of the writes that a memory makes with these weights; None is what they were trained with.
        licence: of the weights.

    Raises TrainingConfigError if the run is not done or did not start from a base model, ModelFormatError for a decay
    outside 0..1.
    """
    record = read_note(out)
    if not record["base"]:
        raise TrainingConfigError("A run from scratch has no base to be added to.", fix="Export a retrofit.")
    if len(record["done"]) != 1:
        raise TrainingConfigError(f"The run in {out.name} is not finished.", fix="Run it again; it goes on.")
    (phase,) = record["phases"]
    (done,) = record["done"].values()
    base = load_model(record["base"])
    config = type(base.config).from_dict(phase["config"])
    if decay is not None:
        config = replace(config, inner=replace(config.inner, decay=decay))
    training = {
        "recipe": record["recipe"],
        "licence": licence,
        **done,
        "seconds": round(logged_seconds(out / phase["name"]), 1),  # `done` misses what a killed process spent
        **{key: record[key] for key in ("date", "data", "machine", "about")},
        "settings": phase["training"],
        "inner": phase["config"]["inner"],
    }
    # A local base is not named by its path, which would mean nothing elsewhere.
    known = record["base"] if not Path(record["base"]).exists() else base.name
    trained = load_trained(out / phase["name"] / FINAL_FILE)
    made = export(base.net, trained, file, name=name, base_name=known, config=config, training=training)
    if plain is not None:
        save_file({key: value.contiguous() for key, value in unpacked(base.net, made).items()}, plain)
    return Exported(made, relative_error(base.net, trained, made))
