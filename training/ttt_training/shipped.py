"""`python -m ttt_training.shipped`: all that is behind the shipped weights, from the text to the model card.

It trains with writes, trains the controls, exports, measures, writes the card: each step is a command that could be
given by hand, and is printed. Ctrl-C keeps everything, and the same line goes on inside the step it stopped in.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ttt_memory.errors import InvalidInputError, TTTMemoryError
from ttt_training.recipes.retrofit import DEFAULT_BASE

RATES = (1e-4, 2e-4, 4e-4)
"""Outer rates of the controls: the best of them on held-out text counts."""
_EVALUATE = "ttt_training.evaluate"


@dataclass(frozen=True)
class Step:
    """One command: its module and words, and the file that is there once it is done."""

    name: str
    module: str
    words: tuple[str, ...]
    makes: Path

    @property
    def done(self) -> bool:
        """Whether it needs no more work. A run is done when its note says so."""
        if self.makes.name != "run.json":
            return self.makes.is_file()
        return self.makes.is_file() and bool(json.loads(self.makes.read_text(encoding="utf-8"))["done"])


def steps(options: argparse.Namespace) -> Iterator[Step]:
    """What is to be done, in order. Later steps are known only when what they depend on is there."""
    out, results, name = options.out, options.results or options.out / "results", f"{options.base}-ttt"
    yield _run(options, "ttt")
    controls = [f"control-{rate:g}" for rate in RATES]
    for rate, control in zip(RATES, controls, strict=True):
        yield _run(options, control, "--control", "--lr", f"{rate:g}", "--floor", f"{rate / 10:g}")

    file = out / f"{name}.safetensors"
    words = ("export", str(out / "ttt"), "--out", str(file), "--name", name)
    yield Step("export", "ttt_training", words, file)

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
    yield Step("card", "ttt_training", words, file.with_suffix(".md"))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Returns the exit status: 0 done, 1 an error that it explains, 3 stopped by a signal."""
    options = _parser().parse_args(arguments)
    try:
        for step in steps(options):
            if step.done and step.name != "card":
                _say(f"{step.name}: done")
                continue
            _say(f"{step.name}: python -m {step.module} {shlex.join(step.words)}")
            step.makes.parent.mkdir(parents=True, exist_ok=True)
            status = subprocess.run([sys.executable, "-m", step.module, *step.words], check=False).returncode
            if status:
                _say(f"stopped in {step.name}; the same command goes on")
                return 3 if status in (3, 130) else 1
    except KeyboardInterrupt:
        _say("stopped; the same command goes on")
        return 3
    except TTTMemoryError as error:
        _say(f"error: {error}")
        return 1
    return 0


def _run(options: argparse.Namespace, name: str, *more: str) -> Step:
    folder = options.out / name
    words = ["run", "retrofit", "--base", options.base, "--data", *options.data, "--out", str(folder), *more]
    words += ["--keep-prefix", str(options.out / "prefix")]
    for option in ("tokens", "length", "threads"):
        if (value := getattr(options, option)) is not None:
            words += [f"--{option}", str(value)]
    return Step(name, "ttt_training", tuple(words), folder / "run.json")


def _measure(options: argparse.Namespace, measurement: str, makes: Path, data: Path, *more: str) -> Step:
    words = (measurement, "--model", options.base, "--data", str(data), *more, "--json", str(makes))
    if options.documents is not None and measurement != "drift":
        words += ("--documents", str(options.documents))
    if options.read is not None:
        words += ("--tokens", str(options.read))
    return Step(makes.stem, _EVALUATE, words, makes)


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
    parser.add_argument("--threads", type=int, help="of PyTorch; results depend on it (default: PyTorch's)")
    return parser


_ABOUT = "All that is behind the shipped weights: training, controls, export, measurements, model card."


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
