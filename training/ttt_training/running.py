"""A recipe, run: its network, its data, its phases one after another, and what is written down about them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.initialisation import reshaped
from ttt_memory.model.loaded import LoadedModel, Tokenizer
from ttt_memory.model.registry import default_dtype, load_model
from ttt_memory.model.transformer import Transformer
from ttt_training.boards import require_wandb
from ttt_training.data.sequences import Sequences
from ttt_training.data.shards import Shards, open_shards
from ttt_training.data.tokenise import Progress, prepare
from ttt_training.distributed import Group
from ttt_training.errors import TrainingConfigError
from ttt_training.planning import Plan, lines, plan
from ttt_training.recipes import Phase, Recipe
from ttt_training.run_note import RunNote
from ttt_training.trainer import FINAL_FILE, TrainResult, train
from ttt_training.weights import load_trained

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
    wandb: str | None = None,
    keep_prefix: Path | None = None,
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
        wandb: project of Weights & Biases that the log goes to as well.
        keep_prefix: see `train`.

    Raises TrainingConfigError, ModelFormatError, ModelNotFoundError or MissingExtraError before any work is done.
    """
    if wandb is not None:
        require_wandb()
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
    note = RunNote(out, recipe, shards, about, writes=group is None or group.first)
    net, results = None, []
    for phase, source in zip(recipe.phases, sources, strict=True):
        folder = out / phase.name
        if not note.is_done(phase):
            net = _network(recipe, phase, net, dtype, device)
            began = time.monotonic()
            result = train(
                net,
                source,
                phase.training,
                folder,
                resume=resume,
                tokenizer=tokenizer.fingerprint,
                group=group,
                wandb=wandb,
                keep_prefix=keep_prefix,
            )
            results.append(result)
            note.add(phase, result, time.monotonic() - began)
            if result.interrupted:
                return Finished(tuple(results), done=False)
        net = _continued(recipe, phase, folder / FINAL_FILE, dtype, device)
    return Finished(tuple(results), done=True)


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


def names_of(data: Sequence[str | Path]) -> list[str]:
    """Names of data files for `run.json`, without their folders."""
    return [str(item) if str(item).startswith("hf:") else Path(item).name for item in data]
