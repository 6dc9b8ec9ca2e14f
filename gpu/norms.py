"""What a fused kernel for RMSNorm, QK-norm, RoPE and the cache write could save: steps timed with each left out.

One mini-batch of 1K tokens behind a full window of 8K, read and learned, 125M and 760M shapes, random weights. A share
is of the whole step's time; where `share_all` is small, PyTorch's own operations stay.
Run: PYTHONPATH=.:kernels:training:adapters python gpu/norms.py
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jobs import Job
from models import SHAPES

from benchmarks import kernels_norms


def case(shape: str, step: str, device: str, dtype: torch.dtype, repeats: int) -> dict[str, Any]:
    """Milliseconds of the step and the shares."""
    net = kernels_norms.build(SHAPES[shape], device, dtype)
    return kernels_norms.shares(kernels_norms.steps(net)[step], repeats, device)


def main() -> None:
    """Reading first: it has no graph to hold."""
    job = Job("norms", __doc__)
    small = job.options.small
    dtype = torch.float32 if small and job.device == "cpu" else torch.bfloat16
    for shape in ("small",) if small else ("125M", "760M"):
        for step in ("read", "learn"):
            job.run(f"{shape} {step}", partial(case, shape, step, job.device, dtype, 2 if small else 20))
    job.finish(("ms", "share_norms", "share_rope", "share_cache", "share_all"))


if __name__ == "__main__":
    main()
