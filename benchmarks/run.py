"""Measure this machine; `make bench`. Resumable: a measurement whose result is there is not made again.

    python benchmarks/run.py [--again] [--only speed] [--quick]

Each measurement runs in a process of its own and writes one JSON file; at the end come a table and a plot. `--quick`
writes to a temporary folder: it shows that the benchmark works and says nothing about the machine.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
MEASUREMENTS = ("speed", "growth")


def main() -> int:
    """Run what is missing, then report."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--again", action="store_true", help="measure again what was measured before")
    parser.add_argument("--only", choices=MEASUREMENTS, help="this measurement alone")
    parser.add_argument("--quick", action="store_true", help="small sizes, kept nowhere: whether it works")
    options = parser.parse_args()
    if options.quick:
        with tempfile.TemporaryDirectory(prefix="ttt-memory-bench-") as folder:
            return measure(Path(folder), options.only, again=True, quick=True)
    return measure(HERE / "results", options.only, again=options.again, quick=False)


def measure(folder: Path, only: str | None, *, again: bool, quick: bool) -> int:
    """Run measurements into `folder`, print the table, draw the plot."""
    import report

    for name in MEASUREMENTS if only is None else (only,):
        out = folder / f"{name}.json"
        if _finished(out) and not again:
            print(f"{name}: there already ({out.name}); --again measures anew")
            continue
        print(f"{name}: measuring", flush=True)
        command = [sys.executable, str(HERE / f"{name}.py"), str(out), *(["--quick"] if quick else [])]
        if (status := subprocess.run(command, check=False).returncode) != 0:
            print(f"{name} failed with status {status}", file=sys.stderr)
            return 1
    results = {
        name: json.loads(_path.read_text()) for name in MEASUREMENTS if _finished(_path := folder / f"{name}.json")
    }
    report.table(results, folder / "table.txt")
    if len(results) == len(MEASUREMENTS):
        print(f"plot: {report.plot(results, folder / 'benchmark.png').name}")
    return 0


def _finished(out: Path) -> bool:
    """A file is written whole or not at all worth reading: one that cannot be parsed is measured again."""
    try:
        return isinstance(json.loads(out.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
