"""What the GPU jobs share: results that survive a cut, timing by CUDA events, a table at the end."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Job:
    """One job's results: a JSON file under $OUT, written after every case, so that a cut loses one case at most.

    `--resume FILE` takes the cases of an earlier file as done; `--minutes` ends the job in good order before a limit.
    """

    def __init__(self, name: str, doc: str | None) -> None:
        parser = argparse.ArgumentParser(description=(doc or name).splitlines()[0])
        parser.add_argument("--resume", type=Path, help="results of an earlier run; its cases are not repeated")
        parser.add_argument("--minutes", type=float, default=8.0, help="start no case after this long")
        parser.add_argument("--only", default="", help="cases whose name contains this")
        parser.add_argument("--small", action="store_true", help="tiny sizes, to try the script itself")
        self.options = parser.parse_args()
        if not torch.cuda.is_available() and not self.options.small:
            raise SystemExit("this job needs a CUDA GPU; --small tries the script without one")
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.path = Path(os.environ.get("OUT", ".")) / f"{name}.json"
        self.until = time.monotonic() + 60 * self.options.minutes
        earlier = self.options.resume or self.path
        self.cases: dict[str, dict[str, Any]] = {}
        if earlier.is_file():
            self.cases = json.loads(earlier.read_text())["cases"]

    def run(self, name: str, case: Callable[[], dict[str, Any]]) -> None:
        """Runs a case unless it is done, left out, or too late; an error is its result."""
        if self.options.only not in name or name in self.cases:
            return
        if time.monotonic() > self.until:
            print(f"{name}: no time left; run again with --resume {self.path}")
            return
        try:
            self.cases[name] = case()
        except Exception as error:  # a case that fails must not take the others with it
            self.cases[name] = {"error": f"{type(error).__name__}: {error}"[:500], "passed": False}
        if self.device == "cuda":
            torch.cuda.empty_cache()
        print(name, self.cases[name], flush=True)
        self.save()

    def save(self) -> None:
        """Writes everything there is so far."""
        try:
            import triton

            kernels = triton.__version__
        except ImportError:
            kernels = None
        gpu = torch.cuda.get_device_name() if self.device == "cuda" else "none"
        machine = {"gpu": gpu, "torch": torch.__version__, "triton": kernels, "python": platform.python_version()}
        machine["date"] = time.strftime("%Y-%m-%d")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps({**machine, "cases": self.cases}, indent=1) + "\n")

    def finish(self, columns: tuple[str, ...]) -> None:
        """Prints the short table; exits with 1 if a case did not pass."""
        print()
        print("case", *columns, sep="\t")
        for name, row in self.cases.items():
            print(name, *(row.get(column, "-") for column in columns), sep="\t")
        bad = [name for name, row in self.cases.items() if row.get("passed") is False]
        print("failed:", ", ".join(bad) or "none")
        sys.exit(1 if bad else 0)


def quantiles(action: Callable[[], object], *, seconds: float = 0.6, device: str = "cuda") -> dict[str, float]:
    """Milliseconds at the 20th, 50th and 80th percentile, after a warm-up, the L2 cache flushed between runs."""
    if device != "cuda":
        begun = time.perf_counter()
        action()
        once = 1e3 * (time.perf_counter() - begun)
        return {"ms_p20": once, "ms": once, "ms_p80": once}
    for _ in range(3):
        action()
    torch.cuda.synchronize()
    cache = torch.empty(256 << 20, dtype=torch.uint8, device=device)
    times: list[float] = []
    until = time.monotonic() + seconds
    while len(times) < 5 or (time.monotonic() < until and len(times) < 200):
        cache.zero_()
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        action()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    times.sort()
    at = {"ms_p20": 0.2, "ms": 0.5, "ms_p80": 0.8}
    return {name: round(times[int(share * (len(times) - 1))], 4) for name, share in at.items()}
