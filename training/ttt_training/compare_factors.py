"""`python -m ttt_training.compare_factors`: eight short trainings that differ in one thing each, and their table.

Ctrl-C keeps what was done; the same command goes on inside the run, or the measurement, where it stopped. The result is
written anew after every run. What is finished is in the progress file beside the result: with that file alone the
command goes on anywhere, even where the runs' folders are gone.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from ttt_memory.errors import InvalidInputError, TTTMemoryError
from ttt_memory.model.catalogue import models_dir
from ttt_memory.model.config import FOLD_VERSION, ModelConfig
from ttt_memory.model.registry import default_dtype, load_model
from ttt_training.evaluate.about import cpu, head
from ttt_training.evaluate.books import books
from ttt_training.evaluate.progress import Progress, beside
from ttt_training.factors import Factor, factors, measured, write
from ttt_training.recipes import Changes, Recipe, changed, recipe
from ttt_training.recipes.retrofit import DEFAULT_BASE
from ttt_training.running import open_data, plans, run


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0 done, 1 an error that it explains, 3 stopped by a signal."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given)
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        return _compare(options, given)
    except TTTMemoryError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("stopped; what was finished is kept, the same command goes on")
        return 3


def _compare(options: argparse.Namespace, given: list[str]) -> int:
    base = load_model(options.base)
    every = _wanted(options, factors(base.config, tokens=options.tokens, length=options.length, seed=options.seed))
    texts = books(options.held_out, base.tokenizer, documents=options.documents, tokens=options.read)
    distances = options.distances or (options.read // 2, options.read * 3 // 4)
    shards = open_data(options.data, base.tokenizer, options.shards or models_dir().parent / "shards")
    settings = {"data": options.held_out.name, "documents": options.documents, "tokens": options.read}
    settings |= {"trained_tokens": options.tokens, "seed": options.seed, "distances": list(distances)}
    found: dict[str, Any] = head("factors", base, given, module="ttt_training.compare_factors")
    found |= {"settings": settings, "runs": {}}
    training = 1.5 * options.tokens / options.read  # in texts read: a trained token takes about 1.5 times as long
    cost = training + 2 * len(texts)
    progress = Progress(beside(options.json), cost * len(every))
    dtype = torch.float32 if options.base == "tiny" else default_dtype()
    recipes = [(one, changed(_recipe(options, base.config), one.changes)) for one in every]
    for _, made in recipes:  # what cannot work is said before the first of them is trained
        plans(made, dtype=dtype, device=options.device, out=None)

    def work(made: Recipe, out: Path) -> dict[str, Any]:
        finished = run(
            made,
            shards,
            base.tokenizer,
            out,
            device=options.device,
            dtype=dtype,
            say=lambda _: None,
            about={"command": found["command"], "files": [Path(item).name for item in options.data]},
            keep_prefix=options.out / "prefix",
        )
        if not finished.done:
            raise KeyboardInterrupt
        progress.passed(training)
        (phase,) = made.phases
        row = measured(base, out / phase.name, texts, options.read, progress, distances=distances)
        return row | {"cpu": cpu()}

    same = {"base": base.fingerprint, "data": shards.key, "dtype": str(dtype), "fold": FOLD_VERSION}
    same |= {"texts": [text.name for text in texts], "tokens": options.read, "distances": list(distances)}
    for factor, made in recipes:
        _say(f"{factor.name}: {factor.about}")
        key = {"measurement": "factor", "trained": _trained(made), **same}
        row = progress.once(key, factor.name, cost, partial(work, made, options.out / factor.name))
        found["runs"][factor.name] = {"about": factor.about} | row
        write(found, options.json)
    if options.only is None:
        shutil.rmtree(options.out / "prefix", ignore_errors=True)  # all of them are done
    sys.stdout.write(options.json.with_suffix(".md").read_text(encoding="utf-8"))
    return 0


def _trained(made: Recipe) -> dict[str, Any]:
    """What a training was: one that is finished is not done again where all of it is the same."""
    (phase,) = made.phases
    outer = {"training": phase.training.to_dict(), "length": phase.length, "memory_share": phase.memory_share}
    return {"config": phase.config.to_dict(), **outer}


def _recipe(options: argparse.Namespace, config: ModelConfig) -> Recipe:
    """The retrofit of the base."""
    made = recipe("retrofit", base=options.base, config=config)
    return made if options.memory_share is None else changed(made, Changes(memory_share=options.memory_share))


def _wanted(options: argparse.Namespace, every: tuple[Factor, ...]) -> list[Factor]:
    names = [one.name for one in every]
    wanted = names if options.only is None else options.only.split(",")
    if unknown := sorted(set(wanted) - set(names)):
        raise InvalidInputError(f"There is no factor {unknown[0]!r}.", fix=f"Known: {', '.join(names)}.")
    return [one for one in every if one.name in wanted]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ttt_training.compare_factors", description=_ABOUT)
    parser.add_argument(
        "--data", nargs="+", required=True, help="to train on, as `python -m ttt_training run` takes it"
    )
    parser.add_argument("--held-out", type=Path, required=True, metavar="FILE", help="texts that are only measured on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="result; the table is OUT's .md")
    parser.add_argument("--base", default=DEFAULT_BASE, help="base model (default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=200_000, help="trained on by each run (default: %(default)s)")
    parser.add_argument("--length", type=int, help="tokens of a training sequence (default: the recipe's)")
    parser.add_argument("--memory-share", type=float, help="share of memory-shaped sequences (default: the recipe's)")
    parser.add_argument("--documents", type=int, default=4, help="held-out texts (default: %(default)s)")
    parser.add_argument("--read", type=int, default=8192, help="tokens read of each (default: %(default)s)")
    parser.add_argument(
        "--distances", type=_counts, help="of hidden codes from the end (default: 1/2 and 3/4 of --read)"
    )
    parser.add_argument("--only", metavar="NAMES", help="some of the runs: default,muon,decay,...")
    parser.add_argument("--shards", type=Path, help="where shards are kept (default: the user's cache)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda, for training")
    parser.add_argument("--threads", type=int, help="of PyTorch (default: PyTorch's)")
    return parser


_ABOUT = (
    "Eight short trainings that differ in one thing each: inner rule, decay, width, blocks, mini-batch, window, recall."
)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
