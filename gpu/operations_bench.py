"""The registry's operations on the GPU beside naive PyTorch, each checked before it is timed; decode of many tenants.

Run: PYTHONPATH=.:kernels:training:adapters python gpu/operations_bench.py
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jobs import Job
from ttt_kernels.registry import BenchmarkCase, benchmark_cases

from benchmarks.kernels import measure


def timed(case: BenchmarkCase, device: str, dtype: torch.dtype, seconds: float) -> dict[str, Any]:
    """Every implementation's row, and for the table Triton's ratio to the naive composition."""
    rows = measure(case, device, dtype, seconds)
    ratios = {row["impl"]: row.get("ratio_to_naive") for row in rows}
    peaks = {row["impl"]: row.get("peak_mb") for row in rows}
    return {
        "naive_ms": next(row["p50_ms"] for row in rows if row["impl"] == "naive"),
        "triton": ratios.get("triton"),
        "triton_in_place": ratios.get("triton_in_place"),
        "reference": ratios.get("reference"),
        "triton_mb": peaks.get("triton"),
        "naive_mb": peaks.get("naive"),
        "passed": all(row["passed"] for row in rows),
        "rows": rows,
    }


def main() -> None:
    """bf16 first: it is what training runs in."""
    job = Job("operations_bench", __doc__)
    dtypes = (torch.float32,) if job.options.small else (torch.bfloat16, torch.float32)
    for dtype in dtypes:
        for case in benchmark_cases():
            name = f"{case.name} {str(dtype).removeprefix('torch.')}"
            job.run(name, partial(timed, case, job.device, dtype, 0.05 if job.options.small else 0.5))
    job.finish(("naive_ms", "triton", "triton_in_place", "reference", "triton_mb", "naive_mb", "passed"))


if __name__ == "__main__":
    main()
