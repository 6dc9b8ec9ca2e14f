"""Attention on the GPU: every derivative in bf16, fp16 and fp32 against float64, beside PyTorch's own rounding.

A 16-bit result passes when its largest error is at most twice that of the plain PyTorch reference in the same
precision. Run: PYTHONPATH=.:kernels:training:adapters python gpu/attention_correct.py
"""

from __future__ import annotations

from typing import Any

import torch
from jobs import Job
from torch import Tensor
from ttt_kernels.attention import KeyValues, Rope
from ttt_kernels.attention.api import attention
from ttt_kernels.attention.impl.triton import windowed
from ttt_kernels.attention.tiles.launch import TritonPasses

NAMES = ("q", "k", "v", "pk", "pv", "sk", "sv")
HOW: dict[str, dict[str, Any]] = {
    "turned_on_load": {"passes": TritonPasses(turn_on_load=True)},
    "turned_before": {"passes": TritonPasses(turn_on_load=False)},
}


def inputs(case: dict[str, Any], device: str) -> tuple[list[Tensor], dict[str, Any]]:
    """Leaves in float64 in the order of NAMES, and the other arguments."""
    torch.manual_seed(0)
    heads, kv = case["heads"]
    rows = [(heads, case["length"])] + [(kv, case["length"])] * 2
    rows += [(kv, case["held"])] * 2 + [(kv, case["sinks"])] * 2
    leaves = [torch.randn(2, *row, case["width"], dtype=torch.float64, device=device) for row in rows]
    frequencies = 1e4 ** -(torch.arange(0, case["width"], 2, dtype=torch.float64, device=device) / case["width"])
    angles = torch.arange(16384, device=device)[:, None] * frequencies
    starts = torch.tensor([case["held"] // 3, case["held"] + 7], device=device)
    rope = Rope(angles.cos(), angles.sin(), case["paired"])
    return leaves, {"window": case["window"], "start": starts, "rope": rope}


def derivatives(leaves: list[Tensor], options: dict[str, Any], **how: Any) -> dict[str, Tensor]:
    """Output, gradient, and gradient of <gradient, fixed noise>, by name."""
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    q, k, v, pk, pv, sk, sv = leaves
    prefix = KeyValues(pk, pv) if pk.shape[2] else None
    sinks = KeyValues(sk, sv) if sk.shape[2] else None
    used = [leaf for leaf in leaves if leaf.shape[2]]
    if "passes" in how:
        how = {**how, "scale": q.shape[-1] ** -0.5, "prefix_grad": True}
        out = windowed(q, k, v, prefix=prefix, sinks=sinks, **options, **how)
    else:
        out = attention(q, k, v, prefix=prefix, sinks=sinks, **options, **how)
    generator = torch.Generator(q.device).manual_seed(7)

    def noise(like: Tensor) -> Tensor:
        fixed = torch.randn(like.shape, generator=generator, device=like.device, dtype=torch.float64)
        return fixed.bfloat16().to(like.dtype)

    cotangent = noise(out).requires_grad_()
    first = torch.autograd.grad(out, used, cotangent, create_graph=True)
    product = sum((noise(g) * g).sum(dtype=torch.float64) for g in first)
    second = torch.autograd.grad(product, [*used, cotangent])
    names = [name for name, leaf in zip(NAMES, leaves, strict=True) if leaf.shape[2]]
    result = {"out": out, **{f"d{n}": g for n, g in zip(names, first, strict=True)}}
    result |= {f"d2{n}": g for n, g in zip([*names, "out"], second, strict=True)}
    return {name: x.detach().double() for name, x in result.items()}


def compare(case: dict[str, Any], dtype: torch.dtype, device: str, how: dict[str, Any]) -> dict[str, Any]:
    """Largest ratio of our error to the plain one's, and whether two runs agree bit for bit."""
    leaves, options = inputs(case, device)
    leaves = [leaf.to(dtype).double() for leaf in leaves]
    exact = derivatives(leaves, options, impl="reference")
    low = [leaf.to(dtype) for leaf in leaves]
    plain = derivatives(low, options, impl="reference")
    ours, again = derivatives(low, options, **how), derivatives(low, options, **how)
    ratios, errors = {}, {}
    for name, truth in exact.items():
        size = truth.abs().max().clamp(min=1e-9)
        error, allowed = ((x[name] - truth).abs().max() / size for x in (ours, plain))
        errors[name] = float(error)
        ratios[name] = float(error / allowed.clamp(min=5e-6 if dtype == torch.float32 else 1e-4))
    worst = max(ratios, key=lambda name: ratios[name])
    same = all(torch.equal(ours[name], again[name]) for name in ours)
    return {
        "worst": worst,
        "ratio": round(ratios[worst], 3),
        "error": f"{errors[worst]:.2e}",
        "same_bits": same,
        "passed": bool(ratios[worst] <= 2 and same),
    }


def cases(small: bool) -> dict[str, dict[str, Any]]:
    """Widths, groups, prefixes and sinks; `small` for a machine without a GPU."""
    length, window, held = (8, 12, 14) if small else (500, 1024, 1100)
    base = {"heads": (4, 4), "length": length, "window": window, "held": held, "sinks": 0, "paired": True}
    widths = (16,) if small else (64, 80, 96, 128)
    table = {f"d{width}": {**base, "width": width} for width in widths}
    table[f"d{widths[0]}-gqa4-sinks4"] = {**base, "width": widths[0], "heads": (8, 2), "sinks": 4, "paired": False}
    table[f"d{widths[0]}-no-prefix"] = {**base, "width": widths[0], "held": 0}
    return table


def main() -> None:
    """Runs what is not done yet and prints the table."""
    job = Job("attention_correct", __doc__)
    torch.backends.cuda.matmul.allow_tf32 = False
    dtypes = (torch.float32, torch.float16) if job.device == "cpu" else (torch.bfloat16, torch.float16, torch.float32)
    for name, case in cases(job.options.small).items():
        for dtype in dtypes:
            for rotation, how in HOW.items():
                label = f"{name}-{str(dtype).removeprefix('torch.')}-{rotation}"
                job.run(label, lambda c=case, d=dtype, h=how: compare(c, d, job.device, h))
    job.finish(("worst", "ratio", "error", "same_bits", "passed"))


if __name__ == "__main__":
    main()
