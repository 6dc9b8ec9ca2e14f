"""`python -m ttt_training`: list and plan recipes, make shards, run, export."""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ttt_memory.errors import TTTMemoryError
from ttt_memory.model.catalogue import models_dir
from ttt_memory.model.initialisation import Initialisation, read_initialisation
from ttt_memory.model.registry import default_dtype, load_model
from ttt_training.cards import card
from ttt_training.data.records import BadRecord
from ttt_training.distributed import joined
from ttt_training.exporting import export_run
from ttt_training.options import changes_of, parser
from ttt_training.planning import lines
from ttt_training.recipes import RECIPES, Recipe, changed, recipe
from ttt_training.recipes.retrofit import ABOUT as RETROFIT
from ttt_training.recipes.retrofit import DEFAULT_BASE
from ttt_training.recipes.tiny import python_documentation
from ttt_training.running import names_of, open_data, plans, run, tokenizer_of


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit status: 0 done, 1 an error that it explains, 3 stopped by a signal."""
    words = sys.argv[1:] if arguments is None else arguments
    options = parser().parse_args(words, argparse.Namespace(words=words))
    if getattr(options, "threads", None):
        torch.set_num_threads(options.threads)
    try:
        return int(_VERBS[options.verb](options))
    except TTTMemoryError as error:
        _say(f"error: {error}")
        return 1
    except KeyboardInterrupt:
        _say("stopped; what was finished is kept")
        return 3


def _list(_: argparse.Namespace) -> int:
    for name, make in RECIPES.items():
        _out(f"{name:20} {make().about}")
    _out(f"{'retrofit':20} {RETROFIT} (--base MODEL, default {DEFAULT_BASE})")
    return 0


def _plan(options: argparse.Namespace) -> int:
    for phase, numbers in plans(_recipe(options), dtype=_dtype(options), device=options.device, out=options.out):
        for line in lines(phase, numbers):
            _out(line)
    return 0


def _shards(options: argparse.Namespace) -> int:
    tokenizer = load_model(options.tokenizer or options.base).tokenizer
    shards = open_data(options.data, tokenizer, _shard_folder(options), **_reading(options))
    _out(f"{shards.folder}: {len(shards):,} documents, {shards.tokens:,} tokens, {len(shards.bad_records)} bad records")
    return 0


def _run(options: argparse.Namespace) -> int:
    with joined(options.device) as group:
        speaks = group is None or group.first
        chosen = _recipe(options)
        tokenizer = tokenizer_of(chosen, options.tokenizer)
        if group is not None and not speaks:
            group.wait()  # for the first rank to have made the shards
        data = options.data or ([python_documentation(options.out)] if chosen.name == "tiny" else [])
        shards = open_data(data, tokenizer, _shard_folder(options), **_reading(options))
        if group is not None and speaks:
            group.wait()
        finished = run(
            chosen,
            shards,
            tokenizer,
            options.out,
            device=options.device if group is None else str(group.device),
            dtype=_dtype(options),
            resume=not options.fresh,
            group=group,
            say=_say if speaks else _nothing,
            about={"command": _command(options.words), "files": names_of(data)},
            wandb=options.wandb,
            keep_prefix=options.keep_prefix,
        )
    for result in finished.results if speaks else ():
        _out(f"{result.parameters}: {result.step:,} steps, {result.tokens:,} tokens, last loss {result.loss:.4f}")
    return 0 if finished.done else 3


def _export(options: argparse.Namespace) -> int:
    exported = export_run(options.run, options.out, name=options.name, plain=options.plain, decay=options.decay)
    made, size = exported.initialisation, options.out.stat().st_size
    _out(f"{options.out}: {made.name} on {made.base}, {size / 1e6:.1f} MB, SHA-256 {made.sha256}")
    _out(f"rounding to int8 changed {100 * exported.error:.2f} % (L2) of what was learned")
    _write_card(made, options, options.out.with_suffix(".md"))
    return 0


def _card(options: argparse.Namespace) -> int:
    _write_card(read_initialisation(options.file), options, options.out or options.file.with_suffix(".md"))
    return 0


def _write_card(made: Initialisation, options: argparse.Namespace, out: Path) -> None:
    text = card(made, data=options.data_about, hardware=options.hardware, evaluations=options.evaluation)
    out.write_text(text, encoding="utf-8")
    _out(f"{out}: the model card")


def _recipe(options: argparse.Namespace) -> Recipe:
    config = load_model(options.base).config if options.recipe == "retrofit" else None
    return changed(recipe(options.recipe, base=options.base, config=config), changes_of(options))


def _dtype(options: argparse.Namespace) -> torch.dtype:
    return torch.float32 if options.recipe == "tiny" else default_dtype()


def _shard_folder(options: argparse.Namespace) -> Path:
    return options.shards or models_dir().parent / "shards"


def _reading(options: argparse.Namespace) -> dict[str, Any]:
    return {"field": options.field, "bad_records": options.bad_records, "report": _bad, "progress": _Tokenising()}


def _bad(record: BadRecord) -> None:
    _say(f"skipped {record.where}: {record.why}")


class _Tokenising:
    """A line now and then while text is tokenised."""

    def __init__(self) -> None:
        self._begun = self._said = time.monotonic()

    def __call__(self, name: str, done: int, size: int, tokens: int) -> None:
        now = time.monotonic()
        if now - self._said > 5:
            self._said = now
            _say(f"tokenising {name}: {100 * done / max(1, size):.0f} %, {tokens:,} tokens, {now - self._begun:.0f} s")


def _command(words: Sequence[str]) -> str:
    """The command line, with the names of files but not the folders of this machine."""
    named = (word if word.startswith("hf:") else re.sub(r"[^=]*/(?=[^/])", "", word.rstrip("/")) for word in words)
    return " ".join(["python -m ttt_training", *named])


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _nothing(_: str) -> None:
    """What ranks but the first say."""


def _out(text: str) -> None:
    sys.stdout.write(f"{text}\n")


_VERBS = {"list": _list, "plan": _plan, "shards": _shards, "run": _run, "export": _export, "card": _card}

if __name__ == "__main__":
    sys.exit(main())
