"""`python -m ttt_training.evaluate [compare|specificity|answering|drift|needles] ...`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ttt_memory.errors import InvalidInputError, TTTMemoryError
from ttt_training.evaluate import measurements, tables
from ttt_training.evaluate.plot import draw, require_matplotlib
from ttt_training.evaluate.subjects import NAMES, RATES

_DEFAULT = "compare"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints a short table, writes JSON. Returns the exit code; 130 after Ctrl-C."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    options = _parser().parse_args(given if given and not given[0].startswith("--") else [_DEFAULT, *given])
    try:
        if getattr(options, "plot", None):
            require_matplotlib()
        measurements.with_shipped(options)
        measure: Callable[..., dict[str, Any]] = getattr(measurements, options.measurement)
        result = measure(options, given)
        _write(options.json, result)
    except TTTMemoryError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("\nStopped. What was finished is kept; the same command goes on from there.\n")
        return 130
    getattr(tables, options.measurement)(result)
    if getattr(options, "plot", None):
        draw(result, options.plot)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m ttt_training.evaluate",
        description="How good the fast weights are. Without a name of a measurement: compare.",
    )
    every = parser.add_subparsers(dest="measurement", metavar="MEASUREMENT", required=True)
    one = _measurement(every, "compare", "loss by position against the controls", documents=8, tokens=16_384)
    one.add_argument("--compare", metavar="NAMES", help=f"of {','.join(NAMES)} (default: all)")
    one.add_argument("--rates", type=_rates, default=RATES, help="naive, control-naive: the best of these counts")
    one.add_argument("--plot", type=Path, metavar="PNG", help="also draw it (needs matplotlib)")

    one = _measurement(every, "specificity", "whether a memory belongs to what was read", documents=8, tokens=16_384)
    _subject(one)

    one = _measurement(every, "answering", "whether answering survives reading", documents=4, tokens=12_500)
    _subject(one)
    one.add_argument("--questions", type=Path, required=True, metavar="FILE", help="SQuAD 2 articles, one a line")
    one.add_argument("--count", type=int, default=100, help="questions asked (default %(default)s)")

    one = _measurement(every, "drift", "what reading much does to other texts", documents=7, tokens=16_384)
    _subject(one)
    one.add_argument("--stops", type=_counts, default=(1, 2, 4, 7), help="documents read at each scoring")
    one.add_argument("--fresh", type=int, default=8, help="documents that are scored (default %(default)s)")
    one.add_argument("--stretch", type=int, default=4_096, help="tokens scored of each (default %(default)s)")

    one = _measurement(every, "needles", "codes in books, by distance", documents=8, tokens=16_384)
    _subject(one)
    one.add_argument("--distances", type=_counts, help="tokens from the end (default 256 to 14336)")
    one.add_argument("--no-notepad", action="store_true", help="weights alone; starts no second process")
    return parser


def _measurement(every: Any, name: str, about: str, *, documents: int, tokens: int) -> argparse.ArgumentParser:
    one: argparse.ArgumentParser = every.add_parser(name, help=about, description=about)
    one.add_argument("--data", type=Path, required=True, metavar="FILE", help=".jsonl(.xz|.gz|.zst) or a folder")
    one.add_argument("--documents", type=_positive, default=documents, help="texts read (default %(default)s)")
    one.add_argument("--tokens", type=_positive, default=tokens, help="tokens of each (default %(default)s)")
    one.add_argument(
        "--json", type=Path, required=True, metavar="OUT", help="result; finished pieces are kept beside it"
    )
    one.add_argument("--model", default="smollm2-135m", help="base model (default %(default)s)")
    one.add_argument("--weights", type=Path, metavar="FILE", help="trained with writes (default: what is shipped)")
    one.add_argument(
        "--control",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="trained without writes; of several the best (default: what is shipped)",
    )
    return one


def _subject(one: argparse.ArgumentParser) -> None:
    names = ("ttt", "naive", "control-naive")
    one.add_argument("--name", choices=names, help="what reads (default: ttt where there are weights, else naive)")
    one.add_argument("--rate", type=float, help="inner rate of naive and control-naive (default: the model's)")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is not positive")
    return value


def _counts(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _rates(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(","))


def _write(out: Path, result: dict[str, Any]) -> None:
    unfinished = out.with_suffix(".part")
    try:
        unfinished.write_text(json.dumps(result, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        os.replace(unfinished, out)
    except OSError as error:
        raise InvalidInputError(f"Cannot write {out}.", why=str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
