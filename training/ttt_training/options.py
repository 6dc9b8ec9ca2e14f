"""Options of `python -m ttt_training`, and the changes of a recipe that they mean."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ttt_training.config import RecallConfig
from ttt_training.recipes import Changes
from ttt_training.recipes.retrofit import DEFAULT_BASE
from ttt_training.trained import CHOICES

_TRAINING = (
    "lr",
    "floor",
    "rate_lr",
    "rate_floor",
    "train",
    "order",
    "every",
    "memory_gb",
    "seed",
    "checkpoint_minutes",
)
_MODEL = ("window", "dynamic_layers", "dynamic_mlp")
_INNER = ("rule", "mini_batch", "decay", "rate")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(prog="python -m ttt_training", description="Meta-learning of the fast weights.")
    verbs = top.add_subparsers(dest="verb", required=True)
    verbs.add_parser("list", help="every recipe in one line")
    planned = verbs.add_parser("plan", help="what a recipe takes: parameters, memory, tokens, time")
    running = verbs.add_parser("run", help="run a recipe; run it again to go on where it stopped")
    for one in (planned, running):
        one.add_argument("recipe", help="a name from `list`")
        _changes(one)
    planned.add_argument("--out", type=Path, help="folder of a run, whose log tells the speed")
    running.add_argument("--out", type=Path, required=True, help="folder of the run")
    running.add_argument("--fresh", action="store_true", help="refuse a folder that holds a run already")
    running.add_argument(
        "--wandb", metavar="PROJECT", help="also log to Weights & Biases (WANDB_MODE=offline: to files)"
    )
    running.add_argument(
        "--keep-prefix",
        type=Path,
        metavar="FOLDER",
        help="outputs of the frozen blocks, for other runs on the same sequences (SmolLM2-135M: 1,152 bytes a token)",
    )
    running.add_argument("--data", nargs="+", metavar="DATA", help=_DATA)
    sharding = verbs.add_parser("shards", help="tokenise text once, for any number of runs")
    sharding.add_argument("--data", nargs="+", metavar="DATA", required=True, help=_DATA)
    sharding.add_argument("--base", default=DEFAULT_BASE, help="model whose tokenizer is used (default: %(default)s)")
    for one in (running, sharding):
        common(one)
    exporting = verbs.add_parser("export", help="a finished retrofit as a small file that CompressedMemory opens")
    exporting.add_argument("run", type=Path, help="folder of the run")
    exporting.add_argument("--out", type=Path, required=True, help="the file, NAME.safetensors")
    exporting.add_argument("--name", required=True, help="what a model with it is called")
    exporting.add_argument("--decay", type=float, help="read with this decay (default: the one it was trained with)")
    exporting.add_argument("--plain", type=Path, help="also write the rounded parameters for `evaluate --weights`")
    carding = verbs.add_parser("card", help="the model card of an exported file, with evaluations made since")
    carding.add_argument("file", type=Path, help="NAME.safetensors")
    carding.add_argument("--out", type=Path, help="the card (default: NAME.md beside the file)")
    for one in (exporting, carding):
        one.add_argument("--data-about", metavar="TEXT", help="for the card: what was trained on, and its licences")
        one.add_argument("--hardware", metavar="TEXT", help="for the card (default: what the run wrote down)")
        one.add_argument("--evaluation", type=Path, nargs="+", default=[], metavar="JSON", help="results for the card")
    return top


_DATA = "files (.jsonl[.xz|.gz|.zst], .txt, .md, .rst), folders of text, hf:NAME[:SPLIT], or one folder of shards"


def common(one: argparse.ArgumentParser) -> None:
    """Options of reading data."""
    one.add_argument("--shards", type=Path, help="where shards are kept (default: the user's cache)")
    one.add_argument("--field", default="text", help="name of the text in a JSON record")
    one.add_argument("--bad-records", type=int, default=100, help="how many are skipped before it is an error")
    if not any(action.dest == "tokenizer" for action in one._actions):
        one.add_argument("--tokenizer", help="model whose tokenizer is used")


def _changes(one: argparse.ArgumentParser) -> None:
    one.add_argument("--base", default=DEFAULT_BASE, help="model that the retrofit starts from (default: %(default)s)")
    one.add_argument("--tokenizer", help="model whose tokenizer is used; for recipes from scratch")
    one.add_argument("--tokens", type=int, help="predicted tokens in all")
    one.add_argument("--length", type=int, help="tokens of a sequence")
    one.add_argument("--batch", type=int, help="sequences of an outer step")
    one.add_argument("--memory-share", type=float, help="share of memory-shaped sequences, 0 to 1")
    one.add_argument("--control", action="store_true", help="the same without writes (inner=none)")
    one.add_argument("--lr", type=float, help="peak learning rate")
    one.add_argument("--floor", type=float, help="last learning rate")
    one.add_argument("--rate-lr", type=float, help="peak learning rate of the inner rates")
    one.add_argument("--rate-floor", type=float, help="last learning rate of the inner rates")
    one.add_argument("--train", choices=CHOICES, help="what is trained")
    one.add_argument("--order", type=int, choices=(1, 2), help="1 leaves the second-order term out")
    one.add_argument("--every", type=int, help="mini-batches between kept states; more saves memory")
    one.add_argument("--memory-gb", type=float, help="what is kept of a sequence may take; more is faster (default: 4)")
    one.add_argument("--recall", type=float, metavar="WEIGHT", help="weight of the recall term (default: none)")
    one.add_argument("--seed", type=int)
    one.add_argument("--checkpoint-minutes", type=float)
    one.add_argument("--window", type=int)
    one.add_argument("--dynamic-layers", type=int, help="blocks with a dynamic MLP")
    one.add_argument("--dynamic-mlp", type=int, metavar="WIDTH", help="of the dynamic MLPs: at most the static ones'")
    one.add_argument("--rule", choices=("sgd", "muon"), help="inner rule")
    one.add_argument("--mini-batch", type=int, help="tokens of an inner step")
    one.add_argument("--decay", type=float, help="share of the distance to W0 that a step gives back")
    one.add_argument("--rate", type=float, help="inner rate to start from")
    one.add_argument("--device", default="cpu", help="cpu or cuda")
    one.add_argument("--threads", type=int, help="of PyTorch; results depend on it (default: PyTorch's)")


def changes_of(options: argparse.Namespace) -> Changes:
    """What the options change in a recipe."""
    training = _given(options, _TRAINING)
    if options.recall is not None:
        training["recall"] = RecallConfig(weight=options.recall)
    return Changes(
        tokens=options.tokens,
        length=options.length,
        batch=options.batch,
        memory_share=options.memory_share,
        control=options.control,
        training=training,
        model=_given(options, _MODEL),
        inner=_given(options, _INNER),
    )


def _given(options: argparse.Namespace, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}
