"""`python -m ttt_training.shipped`: all that is behind the shipped weights, from the text to the model card.

It trains with writes, trains the controls, exports, measures, writes the card: each step is a command that could be
given by hand, and is printed. Ctrl-C keeps everything, and the same line goes on inside the step it stopped in.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ttt_memory.errors import InvalidInputError, TTTMemoryError
from ttt_training import __main__ as trains
from ttt_training.evaluate import __main__ as measures
from ttt_training.evaluate.plot import require_matplotlib
from ttt_training.recipes.retrofit import DEFAULT_BASE

RATES = (2e-4, 4e-4, 8e-4)
"""Outer rates of the controls: the best of them on held-out text counts."""


@dataclass(frozen=True)
class Step:
    """One command. Given again, it does only what it has not done yet."""

    name: str
    module: str
    words: tuple[str, ...]
    frees: Path | None = None
    """A folder that no later step needs."""

    def run(self) -> int:
        """Its exit status. In this process, where Ctrl-C leaves a training the time to keep what it did."""
        command = {"ttt_training": trains.main, "ttt_training.evaluate": measures.main}[self.module]
        return command(self.words)


def steps(options: argparse.Namespace) -> Iterator[Step]:
    """What is to be done, in order. Later steps are known only when what they depend on is there."""
    out, results, name = options.out, options.results, f"{options.base}-ttt"
    yield _run(options, "ttt")
    controls = [f"control-{rate:g}" for rate in RATES]
    for rate, control in zip(RATES, controls, strict=True):
        step = _run(options, control, "--control", "--lr", f"{rate:g}", "--floor", f"{rate / 10:g}")
        yield replace(step, frees=options.out / "prefix") if control == controls[-1] else step

    file = out / f"{name}.safetensors"
    words = ("export", str(out / "ttt"), "--out", str(file), "--name", name)
    yield Step("export", "ttt_training", words)

    chosen = results / "controls.json"
    every = ["--control", *(str(out / control) for control in controls)]
    yield _measure(options, "compare", chosen, options.val, "--compare", "control", *every)
    best = _best(chosen, controls)
    trained = ["--weights", str(file), "--control", str(out / best)]
    compared = results / "evaluate.json"
    yield _measure(options, "compare", compared, options.val, *trained, "--plot", str(compared.with_suffix(".png")))
    unrounded = ["--weights", str(out / "ttt"), "--compare", "ttt"]
    yield _measure(options, "compare", results / "unrounded.json", options.val, *unrounded)
    others = results / "evaluate-docs.json"
    yield _measure(options, "compare", others, options.docs, *trained, "--compare", "swa,naive,ttt,control")
    found = [compared, others]
    asked = ("--questions", str(options.questions))
    for measurement, more in (("specificity", ()), ("answering", asked), ("drift", ()), ("needles", ())):
        found.append(results / f"{measurement}.json")
        yield _measure(options, measurement, found[-1], options.val, "--weights", str(file), *more)

    words = ("card", str(file), "--data-about", options.data_about, "--evaluation", *map(str, found))
    yield Step("card", "ttt_training", words)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0 done, 1 an error that it explains, 3 stopped by a signal."""
    options = _parser().parse_args(arguments)
    options.results = options.results or options.out / "results"
    if options.threads:
        torch.set_num_threads(options.threads)
    try:
        _require_what_comes_late(options)
        for step in steps(options):
            _say(f"{step.name}: python -m {step.module} {shlex.join(step.words)}")
            if status := step.run():
                if status in (3, 130):
                    _say(f"stopped in {step.name}; the same command goes on")
                    return 3
                _say(f"failed in {step.name}; the same command goes on once that is mended")
                return 1
            if step.frees is not None:
                shutil.rmtree(step.frees, ignore_errors=True)
    except KeyboardInterrupt:
        _say("stopped; the same command goes on")
        return 3
    except TTTMemoryError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _require_what_comes_late(options: argparse.Namespace) -> None:
    """Raises what a measurement would raise after hours of training."""
    for file in (options.val, options.docs, options.questions):
        if not file.exists():
            raise InvalidInputError(f"There is no {file}.", fix="Name a file that exists.")
    require_matplotlib()
    try:
        options.results.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidInputError(f"Cannot write to {options.results}.", why=str(error)) from error


def _run(options: argparse.Namespace, name: str, *more: str) -> Step:
    folder = options.out / name
    words = ["run", "retrofit", "--base", options.base, "--data", *options.data, "--out", str(folder), *more]
    words += ["--keep-prefix", str(options.out / "prefix")]
    for option in ("tokens", "length", "threads"):
        if (value := getattr(options, option)) is not None:
            words += [f"--{option}", str(value)]
    return Step(name, "ttt_training", tuple(words))


def _measure(options: argparse.Namespace, measurement: str, makes: Path, data: Path, *more: str) -> Step:
    words = (measurement, "--model", options.base, "--data", str(data), *more, "--json", str(makes))
    if options.documents is not None and measurement != "drift":  # which reads as many as its stops say
        words += ("--documents", str(options.documents))
    if options.read is not None:
        words += ("--tokens", str(options.read))
    return Step(makes.stem, "ttt_training.evaluate", words)


def _best(chosen: Path, controls: Sequence[str]) -> str:
    """The control that counts."""
    about = json.loads(chosen.read_text(encoding="utf-8"))["results"]["control"]["about"]
    for control in controls:
        if about.startswith(f"{control}:"):
            return control
    raise InvalidInputError(f"{chosen.name} is of other controls.", why=about, fix="Remove it and run again.")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m ttt_training.shipped", description=_ABOUT)
    parser.add_argument(
        "--data", nargs="+", required=True, help="to train on, as `python -m ttt_training run` takes it"
    )
    parser.add_argument("--val", type=Path, required=True, metavar="FILE", help="held-out texts of the same kind")
    parser.add_argument("--docs", type=Path, required=True, metavar="FILE", help="held-out texts of another kind")
    parser.add_argument("--questions", type=Path, required=True, metavar="FILE", help="SQuAD 2 articles, one a line")
    parser.add_argument(
        "--data-about", required=True, metavar="TEXT", help="for the card: what the texts are, licences"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs and of the exported file")
    parser.add_argument("--results", type=Path, help="folder of what was measured (default: OUT/results)")
    parser.add_argument("--base", default=DEFAULT_BASE, help="model to start from (default: %(default)s)")
    parser.add_argument("--tokens", type=int, help="trained on, each run (default: the recipe's)")
    parser.add_argument("--length", type=int, help="tokens of a sequence (default: the recipe's)")
    parser.add_argument("--documents", type=int, help="held-out texts read (default: of each measurement)")
    parser.add_argument("--read", type=int, help="tokens read of each (default: of each measurement)")
    parser.add_argument("--threads", type=int, help="of PyTorch, in every step (default: PyTorch's)")
    return parser


_ABOUT = "All that is behind the shipped weights: training, controls, export, measurements, model card."


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
