"""Makes MKL choose its kernels for vector maths before anything is computed in parallel.

oneMKL 2024.2, which PyTorch's wheels carry, resolves each function (exp, cos, sqrt ...) at its first call. If two
threads of one operation make that call together, one of them can compute its whole share with the low-accuracy kernel,
once: errors of thousands of ulp in the first `exp` of a process, and a digest that no replay reproduces
(pytorch/pytorch issue 188792). One element each, on one thread, is enough to keep that from happening.
"""

from __future__ import annotations

import torch

_FUNCTIONS = (
    "acos asin atan ceil cos cosh erf erfc erfinv exp expm1 floor lgamma log log10 log1p log2 reciprocal round rsqrt "
    "sigmoid sin sinh sqrt tan tanh trunc"
).split()


def resolve() -> None:
    """Call every vector function once, for float32 and float64, on a single element (so on a single thread)."""
    for dtype in (torch.float32, torch.float64):
        one = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in _FUNCTIONS:
            getattr(torch, name)(one)
