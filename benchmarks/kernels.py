"""The operations of `ttt_kernels` beside the naive composition of PyTorch calls, on this machine's CPU or GPU.

Every case is checked before it is timed: an implementation is at most twice as far from float64 as the naive
composition in the same precision, or it gets no time. Needs torch, and triton on a GPU; nothing else.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from ttt_kernels.registry import BenchmarkCase, benchmark_cases

Run = Callable[..., Sequence[Tensor]]

FLOOR = 1e-5
"""Relative error that always passes: the naive composition may hit float32's last bit by luck."""


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 if an implementation failed its check."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--seconds", type=float, default=2.0, help="time for each implementation of a case")
    parser.add_argument("--threads", type=int, default=0, help="of PyTorch on the CPU; 0 leaves its own choice")
    parser.add_argument("--json", type=Path, help="result file; an existing one is completed, not repeated")
    options = parser.parse_args(arguments)
    if options.threads:
        torch.set_num_threads(options.threads)
    command = " ".join(["python benchmarks/kernels.py", *(sys.argv[1:] if arguments is None else arguments)])
    about = {"measurement": "kernels", "command": command, **_machine(options.device)}
    result = _resumed(options.json) or {**about, "rows": []}
    done = {(row["case"], row["dtype"]) for row in result["rows"]}
    for case in benchmark_cases():
        for dtype in _dtypes(options.device):
            if options.only not in case.name or (case.name, _name(dtype)) in done:
                continue
            result["rows"] += measure(case, options.device, dtype, options.seconds)
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(result, indent=1) + "\n")
    for row in result["rows"]:
        print(_line(row))
    return 1 if any(not row["passed"] for row in result["rows"]) else 0


def measure(case: BenchmarkCase, device: str, dtype: torch.dtype, seconds: float) -> list[dict[str, Any]]:
    """One row per implementation and one for the naive composition, last; times are taken in turns."""
    torch.manual_seed(0)
    inputs = case.inputs(device, dtype)
    runs: dict[str, Run] = {
        impl: _derived(function, case.order)
        for impl, function in case.ours.items()
        if device == "cuda" or not impl.startswith("triton")
    }
    # These two write into their inputs or run on a CPU only.
    in_place = {impl for impl in runs if impl.endswith("in_place")}
    if device == "cuda":
        runs = {impl: run for impl, run in runs.items() if impl not in ("flash", "in_place", "chunked")}
    runs["naive"] = _derived(case.naive, case.order)
    errors = {}
    exact = _derived(case.naive, case.order)(*_copies(inputs, torch.float64))
    for impl, run in runs.items():
        errors[impl] = _error(run(*_copies(inputs, None) if impl in in_place else inputs), exact)
    del exact
    bound = max(FLOOR, 2 * errors["naive"])
    passed = {impl: error <= bound for impl, error in errors.items()}
    taken, peak = _times({impl: run for impl, run in runs.items() if passed[impl]}, inputs, device, seconds)
    rows = []
    for impl in runs:
        row: dict[str, Any] = {"case": case.name, "dtype": _name(dtype), "impl": impl, "error": errors[impl]}
        row["passed"] = passed[impl]
        if impl in taken:
            # Turn by turn: what slows the machine for a while slows both.
            ratios = [mine / other for mine, other in zip(taken[impl], taken["naive"], strict=True)]
            row |= {f"p{q}_ms": round(_quantile(taken[impl], q), 4) for q in (20, 50, 80)}
            row |= {"runs": len(ratios), **({"peak_mb": peak[impl]} if impl in peak else {})}
            row["ratio_to_naive"] = round(_quantile(ratios, 50), 3)
        rows.append(row)
    gc.collect()
    return rows


def _derived(function: Callable[..., Tensor], order: int) -> Run:
    """`function`, its gradient for a fixed cotangent, or the gradient of that gradient's square."""

    def run(*inputs: Tensor) -> Sequence[Tensor]:
        if not order:
            with torch.no_grad():
                return [function(*inputs)]
        moving = [tensor for tensor in inputs if tensor.requires_grad]
        out = function(*inputs)
        first = torch.autograd.grad(out, moving, torch.ones_like(out), create_graph=order > 1)
        if order == 1:
            return first
        return torch.autograd.grad(torch.stack([g.float().square().sum() for g in first]).sum(), moving)

    return run


def _times(
    runs: dict[str, Run], inputs: Sequence[Tensor], device: str, seconds: float
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Milliseconds of every run, taken in turns, and, on a GPU, the peak of memory above the inputs in MB."""
    taken: dict[str, list[float]] = {impl: [] for impl in runs}
    peak = {}
    for impl, run in runs.items():
        if device == "cuda":
            torch.cuda.synchronize()
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            run(*inputs)
        if device == "cuda":
            peak[impl] = round((torch.cuda.max_memory_allocated() - before) / 1e6, 1)
    until = time.perf_counter() + seconds * len(runs)
    while time.perf_counter() < until or min(map(len, taken.values())) < 5:
        for impl, run in runs.items():
            taken[impl].append(_once(run, inputs, device))
    return taken, peak


def _quantile(values: list[float], percent: int) -> float:
    return sorted(values)[int((len(values) - 1) * percent / 100)]


def _once(run: Run, inputs: Sequence[Tensor], device: str) -> float:
    if device == "cpu":
        clock = _clock()
        begin = clock()
        run(*inputs)
        return (clock() - begin) * 1e3
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    run(*inputs)
    last.record()
    last.synchronize()
    return float(first.elapsed_time(last))


def _clock() -> Callable[[], float]:
    """On one thread the processor time of this process, in which the machine's other work has little part."""
    return time.process_time if torch.get_num_threads() == 1 else time.perf_counter


def _copies(inputs: Sequence[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    """Copies with the same need of gradients; floating-point ones as `dtype` where one is given."""
    return [
        t.detach().to(dtype or t.dtype, copy=True).requires_grad_(t.requires_grad) if t.is_floating_point() else t
        for t in inputs
    ]


def _error(ours: Sequence[Tensor], exact: Sequence[Tensor]) -> float:
    """Largest difference, relative to the largest entry, over all tensors; infinite where something is not a number."""
    worst = 0.0
    for mine, other in zip(ours, exact, strict=True):
        largest = float(other.detach().abs().max())
        difference = float((mine.detach().double() - other.detach()).abs().max()) / max(largest, 1e-30)
        worst = max(worst, difference if difference < float("inf") else float("inf"))
    return worst


def _dtypes(device: str) -> tuple[torch.dtype, ...]:
    low = device == "cuda" or any(
        getattr(torch.cpu, name, bool)() for name in ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    )
    return (torch.float32, torch.bfloat16) if low else (torch.float32,)


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _machine(device: str) -> dict[str, Any]:
    gpu: dict[str, Any] = {}
    if device == "cuda":
        import triton

        gpu = {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda, "triton": triton.__version__}
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": {
            **gpu,
            "device": device,
            "processor": platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "clock": _clock().__name__ if device == "cpu" else "events",
            "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
    }


def _resumed(path: Path | None) -> dict[str, Any] | None:
    if path is None or not path.exists():
        return None
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def _line(row: dict[str, Any]) -> str:
    head = f"{row['case']:32} {row['dtype']:9} {row['impl']:15} error {row['error']:.1e}"
    if "p50_ms" not in row:
        return f"{head}  FAILED its check, not timed"
    memory = f"  {row['peak_mb']:8.1f} MB" if "peak_mb" in row else ""
    return f"{head}  {row['p50_ms']:9.3f} ms  x{row['ratio_to_naive']:.2f} of naive{memory}"


if __name__ == "__main__":
    sys.exit(main())
