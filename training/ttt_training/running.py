"""A recipe, run: its network, its data, its phases one after another, and what is written down about them."""

from __future__ import annotations

import json
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.initialisation import Initialisation, reshaped
from ttt_memory.model.loaded import LoadedModel, Tokenizer
from ttt_memory.model.registry import default_dtype, load_model
from ttt_memory.model.transformer import Transformer
from ttt_training.data.sequences import Sequences
from ttt_training.data.shards import Shards, open_shards
from ttt_training.data.tokenise import Progress, prepare
from ttt_training.distributed import Group
from ttt_training.errors import TrainingConfigError
from ttt_training.planning import Plan, lines, plan
from ttt_training.recipes import Phase, Recipe
from ttt_training.trainer import FINAL_FILE, TrainResult, train
from ttt_training.weights import export, load_trained, relative_error, unpacked

RUN_FILE = "run.json"
Say = Callable[[str], None]


@dataclass(frozen=True)
class Finished:
    """How a run ended: the result of every phase that was run now, and whether all of them are done."""

    results: tuple[TrainResult, ...]
    done: bool


def tokenizer_of(recipe: Recipe, named: str | None) -> Tokenizer:
    """The tokenizer that the recipe's data is made with. Raises TrainingConfigError where it has to be named."""
    spec = named or recipe.tokenizer
    if spec is None:
        raise TrainingConfigError(
            f"The recipe {recipe.name!r} starts from nothing, so it has no tokenizer of its own.",
            why="the paper used Llama 3's, which is not free to redistribute",
            fix="--tokenizer MODEL: a model whose tokenizer to use, for example a folder of Llama 3, or smollm2-135m.",
        )
    return load_model(spec).tokenizer


def open_data(
    data: Iterable[str | Path], tokenizer: Tokenizer, folder: Path, *, progress: Progress | None = None, **options: Any
) -> Shards:
    """Shards to train on: made from files, or finished ones if `data` is one folder of them.

    Raises ModelMismatchError if the finished ones have another tokenizer; otherwise as `prepare`.
    """
    data = list(data)
    if len(data) == 1 and (Path(data[0]) / "index.json").is_file():
        shards = open_shards(data[0])
        shards.require(tokenizer)
        return shards
    return prepare(data, tokenizer, folder, progress=progress, **options)


def plans(recipe: Recipe, *, dtype: torch.dtype, device: str, out: Path | None) -> list[tuple[Phase, Plan]]:
    """Every phase in numbers. Raises TrainingConfigError for one that cannot work."""
    for phase in recipe.phases:
        phase.training.check(phase.config)
    return [(p, plan(p, dtype=dtype, device=device, out=out and out / p.name)) for p in recipe.phases]


def run(
    recipe: Recipe,
    shards: Shards,
    tokenizer: Tokenizer,
    out: Path,
    *,
    device: str = "cpu",
    dtype: torch.dtype | None = None,
    resume: bool = True,
    group: Group | None = None,
    say: Say = print,
    about: dict[str, Any] | None = None,
) -> Finished:
    """Trains every phase of `recipe` that is not done yet; prints the plan first.

    Args:
        recipe: with all changes.
        shards, tokenizer: the data and what made it.
        out: folder of the run: `run.json`, and a folder for every phase.
        device: of the network.
        dtype: of computing; default the machine's.
        resume: False refuses a folder that holds a run.
        group: the ranks of a distributed run, each with this call.
        say: where lines for people go.
        about: JSON-able, kept in `run.json`: the command, the data's names.

    Raises TrainingConfigError, ModelFormatError or ModelNotFoundError before any work is done.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingConfigError("There is no CUDA GPU here.", fix="--device cpu")
    dtype = _dtype(recipe, dtype)
    shards.require(tokenizer)
    recipe = _fitted(recipe, tokenizer)
    place = {"rank": group.rank, "world": group.world} if group else {}
    sources = [Sequences(phase.source(shards), **place) for phase in recipe.phases]
    for phase, numbers in plans(recipe, dtype=dtype, device=device, out=out):
        for line in lines(phase, numbers):
            say(line)
    about = {"device": device, "dtype": str(dtype), "ranks": group.world if group else 1, **(about or {})}
    note = _Note(out, recipe, shards, about, writes=group is None or group.first)
    net, results = None, []
    for phase, source in zip(recipe.phases, sources, strict=True):
        folder = out / phase.name
        if not note.is_done(phase):
            net = _network(recipe, phase, net, dtype, device)
            began = time.monotonic()
            result = train(
                net, source, phase.training, folder, resume=resume, tokenizer=tokenizer.fingerprint, group=group
            )
            results.append(result)
            note.add(phase, result, time.monotonic() - began)
            if result.interrupted:
                return Finished(tuple(results), done=False)
        net = _continued(recipe, phase, folder / FINAL_FILE, dtype, device)
    return Finished(tuple(results), done=True)


@dataclass(frozen=True)
class Exported:
    """A learned initialisation, and the L2 error of its rounding as a share of what training changed."""

    initialisation: Initialisation
    error: float


def export_run(out: Path, file: Path, *, name: str, plain: Path | None = None, licence: str = "Apache-2.0") -> Exported:
    """A finished run as a learned initialisation, with what `run.json` says of it.

    Args:
        out: the run's folder.
        file: what is written.
        name: what a model with it is called.
        plain: also write the parameters as they come back out of the file, for `ttt_training.evaluate --weights`.
        licence: of the weights.

    Raises TrainingConfigError if the run is not done or did not start from a base model.
    """
    record = _read_note(out)
    if not record["base"]:
        raise TrainingConfigError("A run from scratch has no base to be added to.", fix="Export a retrofit.")
    if len(record["done"]) != 1:
        raise TrainingConfigError(f"The run in {out.name} is not finished.", fix="Run it again; it goes on.")
    (phase,) = record["phases"]
    (done,) = record["done"].values()
    base = load_model(record["base"])
    config = type(base.config).from_dict(phase["config"])
    training = {
        "recipe": record["recipe"],
        "licence": licence,
        **done,
        **{key: record[key] for key in ("date", "data", "machine", "about")},
        "settings": phase["training"],
    }
    # A local base is not named by its path, which would mean nothing elsewhere.
    known = record["base"] if not Path(record["base"]).exists() else base.name
    trained = load_trained(out / phase["name"] / FINAL_FILE)
    made = export(base.net, trained, file, name=name, base_name=known, config=config, training=training)
    if plain is not None:
        save_file({key: value.contiguous() for key, value in unpacked(base.net, made).items()}, plain)
    return Exported(made, relative_error(base.net, trained, made))


def _dtype(recipe: Recipe, dtype: torch.dtype | None) -> torch.dtype:
    return torch.float32 if recipe.base == "tiny" else dtype or default_dtype()


def _fitted(recipe: Recipe, tokenizer: Tokenizer) -> Recipe:
    """From scratch, the vocabulary is the tokenizer's; a document then starts with its first stop token."""
    from dataclasses import replace

    if recipe.base is not None:
        return recipe
    start = min(tokenizer.stop_tokens, default=0)
    fitted = [
        replace(p, config=replace(p.config, vocab_size=tokenizer.vocab_size, start_token=start))
        if tokenizer.vocab_size != p.config.vocab_size
        else p
        for p in recipe.phases
    ]
    return replace(recipe, phases=tuple(fitted))


def _network(recipe: Recipe, phase: Phase, before: Transformer | None, dtype: torch.dtype, device: str) -> Transformer:
    """A network of the phase's own: from the phase before, the base model, or the seed."""
    if before is not None:
        return reshaped(before, phase.config).to(device)
    if recipe.base is not None:
        return reshaped(_base(recipe.base, dtype).net, phase.config).to(device)
    net = Transformer(phase.config)
    net.initialise(torch.Generator().manual_seed(phase.training.seed))
    return net.to(device, dtype)


def _base(spec: str, dtype: torch.dtype) -> LoadedModel:
    return load_model(spec, dtype=dtype)


def _continued(recipe: Recipe, phase: Phase, final: Path, dtype: torch.dtype, device: str) -> Transformer:
    """The network as a finished phase left it."""
    net = _network(recipe, phase, None, dtype, device)
    own = dict(net.state_dict())
    for name, tensor in load_trained(final).items():
        if name not in own or own[name].shape != tensor.shape:
            raise ModelFormatError(f"{final.name} does not fit the recipe.", why=f"{name} differs", path=str(final))
        own[name] = (tensor if tensor.ndim == 1 or "w0_" in name else tensor.to(dtype)).to(device)
    net.load_state_dict(own, assign=True)
    return net.requires_grad_(False)


class _Note:
    """`run.json`: what was run on what, and which phases are done."""

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
            earlier = _read_note(out)
            self._refuse_another(earlier)
            self._record |= {key: earlier[key] for key in ("date", "machine", "about", "done")}
        else:
            machine = {
                "processor": platform.machine(),
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
        return phase.name in self._record["done"]

    def add(self, phase: Phase, result: TrainResult, seconds: float) -> None:
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


def _read_note(out: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingConfigError(f"The folder {out.name!r} holds no run.", why=str(error)) from error
    return record


def names_of(data: Sequence[str | Path]) -> list[str]:
    """Names of data files for `run.json`, without their folders."""
    return [str(item) if str(item).startswith("hf:") else Path(item).name for item in data]
