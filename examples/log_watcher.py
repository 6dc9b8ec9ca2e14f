"""A log watcher that learns what is usual, and raises an alarm at lines that are not.

    python examples/log_watcher.py                       # a log written for this example, with three strange lines
    python examples/log_watcher.py app.log --model tiny  # your own; the small model is enough for many logs

Nobody says what strange looks like. A line is scored under two memories: one that reads this log, and one that never
read anything. The difference (nats per token) is what reading has taught about the line: how familiar it is, whatever
the base model knew before. The threshold is measured on the log: the mean of the last calm lines less four deviations.
A block with a line below it is kept searchable but not learned, so that trouble does not become usual. Blind to what
has a familiar form: a rate that drifts, a number that is wrong.
"""

from __future__ import annotations

import argparse
import random
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from ttt_memory import CompressedMemory, TTTMemoryError

LINES, WARM_UP, CALM = 20, 10, 60
"""Lines in a block; blocks before the first alarm; calm lines that the threshold is measured on."""
DEVIATIONS, LEAST_SPREAD = 4.0, 0.05
"""The threshold's distance from the mean; nats per token that are at least taken for one deviation."""
USUAL = (
    "INFO  gate={gate} ship={ship} entered draught={metres:.1f} m",
    "INFO  gate={gate} ship={ship} left after {minutes} min",
    "INFO  tide level={metres:.1f} m rising",
    "INFO  pump={gate} on power={minutes} kW",
    "WARN  gate={gate} slow closing took={minutes} s",
)
STRANGE = {
    12: "ERROR Traceback (most recent call last): File 'lock.py', line {minutes}, in close: OSError: [Errno 5]",
    15: "CRIT  kernel: nvme0: I/O timeout, aborting queue {gate}; filesystem remounted read-only",
    18: "INFO  login failed user=admin{minutes} from=203.0.113.{minutes} password='' (no such account)",
}


class Seen(NamedTuple):
    """One block: its number, its strangest line, how familiar that is, and what the watcher made of it."""

    number: int
    line: str
    familiar: float
    threshold: float | None
    alarm: bool


def written_log() -> Iterator[str]:
    """Twenty blocks of a harbour's log, the same at every run; in those of `STRANGE` one line is wrong."""
    dice, now = random.Random(7), datetime(2026, 3, 2, 6, tzinfo=UTC)
    for number in range(20):
        wrong = dice.randrange(LINES) if number in STRANGE else None
        for place in range(LINES):
            now += timedelta(seconds=dice.randrange(5, 90))
            form = STRANGE[number] if place == wrong else dice.choice(USUAL)
            facts = {"gate": dice.choice("ABC"), "ship": f"MS-{dice.randrange(100, 999)}"}
            line = form.format(**facts, metres=dice.uniform(2, 9), minutes=dice.randrange(10, 99))
            yield f"{now:%Y-%m-%dT%H:%M:%SZ} {line}\n"


def watch(reader: CompressedMemory, nobody: CompressedMemory, lines: Iterator[str]) -> Iterator[Seen]:
    """Measure each block of lines; then let the reader learn it, where it is calm."""
    calm: deque[float] = deque(maxlen=CALM)
    block: list[str] = []
    number = 0
    for line in lines:
        block.append(line)
        if len(block) < LINES:
            continue
        scores = [(nobody.score(line) - reader.score(line), line.strip()) for line in block if line.strip()]
        familiar, strangest = min(scores, default=(0.0, ""))
        threshold = fmean(calm) - DEVIATIONS * max(stdev(calm), LEAST_SPREAD) if number >= WARM_UP else None
        alarm = threshold is not None and familiar < threshold
        reader.ingest("".join(block), metadata={"block": number, "alarm": alarm}, learn=not alarm)
        if not alarm:
            calm.extend(score for score, _ in scores)
        yield Seen(number, strangest, familiar, threshold, alarm)
        number, block = number + 1, []


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line and watch."""
    parser = argparse.ArgumentParser(description="Learn what is usual in a log, and raise an alarm where it is not.")
    parser.add_argument("file", nargs="?", type=Path, help="default: a log written for this example")
    parser.add_argument("--db", help="keep the memory in this SQLite file (default: in memory only)")
    parser.add_argument("--model", help="smollm2-135m-ttt (default), smollm2-135m, tiny, a folder or a GGUF file")
    options = parser.parse_args(arguments)
    url = f"sqlite:///{options.db}" if options.db else "sqlite://"
    alarms: list[int] = []
    try:
        lines = options.file.open(encoding="utf-8", errors="replace") if options.file else written_log()
        with (
            CompressedMemory.open(url, tenant="harbour", model=options.model) as reader,
            CompressedMemory.open(url, tenant="nobody", model=options.model) as nobody,
        ):
            for seen in watch(reader, nobody, iter(lines)):
                limit = "" if seen.threshold is None else f", threshold {seen.threshold:.2f}"
                print(f"block {seen.number:>2}: familiar {seen.familiar:5.2f}{limit}", flush=True)
                if seen.alarm:
                    alarms.append(seen.number)
                    print(f"ALARM {seen.line}", flush=True)
    except (TTTMemoryError, OSError) as error:
        print(error, file=sys.stderr)
        return 1
    if options.file is None:
        found = len(STRANGE.keys() & set(alarms))
        print(f"{found} of {len(STRANGE)} strange lines found, {len(alarms) - found} false alarms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
