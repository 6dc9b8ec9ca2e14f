"""Attention on the GPU: useful TFLOP/s of forward, backward and double backward, beside PyTorch's own.

One chunk of 1024 queries against a window of 8192 keys held as a prefix. Useful work is attended pairs x 2 d x 2, 5
and 12 matrix products. The kernels must agree with the reference first; without that there is no number.
Run: PYTHONPATH=.:kernels:training:adapters python gpu/attention_bench.py
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import attention_correct
import torch
import torch.nn.functional as F
from jobs import Job, quantiles
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from ttt_kernels.attention.tiles.geometry import Geometry
from ttt_kernels.attention.tiles.launch import Tile, TritonPasses

PRODUCTS = {"forward": 2, "backward": 5, "double": 12}
FLOORS = {"forward": 300, "backward": 180, "double": 120}
"""TFLOP/s at d=64 on an H200 (issue 5)."""


@dataclass(frozen=True)
class Shape:
    """Batch, query heads, key/value heads, queries, window and width."""

    batch: int
    heads: int
    kv: int
    length: int
    window: int
    width: int

    def tensors(self, device: str) -> tuple[Tensor, ...]:
        """q, k, v, pk, pv in bf16 (fp16 without a GPU)."""
        torch.manual_seed(0)
        dtype = torch.bfloat16 if device == "cuda" else torch.float16
        rows = ((self.heads, self.length), (self.kv, self.length), (self.kv, self.length))
        rows += ((self.kv, self.window),) * 2
        return tuple(torch.randn(self.batch, *row, self.width, device=device).to(dtype) for row in rows)

    def geometry(self, device: str) -> Geometry:
        """Every query sees a full window."""
        angles = torch.randn(self.window + self.length, self.width // 2, device=device)
        starts = torch.full((self.batch,), self.window, device=device)
        cos, sin = angles.cos(), angles.sin()
        return Geometry(starts, self.window, 0, self.width**-0.5, cos, sin, True, True)

    def flop(self, stage: str) -> float:
        """Useful floating-point operations."""
        return self.batch * self.heads * self.length * self.window * 2.0 * self.width * PRODUCTS[stage]


def ours(
    shape: Shape, device: str, on_load: bool, tiles: dict[str, Tile] | None = None
) -> dict[str, Callable[[], Any]]:
    """The three stages as calls; also the inner step's, whose prefix needs no gradient and has no cotangent."""
    passes, inputs, at = TritonPasses(on_load, tiles), shape.tensors(device), shape.geometry(device)
    out, lse = passes.forward(*inputs, at)
    dlse, (q, k, v, pk, pv) = torch.zeros_like(lse), inputs
    every, few = (q, k, v, pk, pv), (q, k, v, None, None)
    return {
        "forward": partial(passes.forward, *inputs, at),
        "backward": partial(passes.backward, inputs, out, lse, out, dlse, at, True, True),
        "double": partial(passes.double, inputs, out, lse, out, dlse, every, at, True),
        "backward-inner": partial(passes.backward, inputs, out, lse, out, dlse, at, True, False),
        "double-inner": partial(passes.double, inputs, out, lse, out, dlse, few, at, True),
    }


def mask(shape: Shape, device: str) -> Tensor:
    """[T, W + T], the window of every query."""
    q_at = torch.arange(shape.window, shape.window + shape.length, device=device)[:, None]
    k_at = torch.arange(shape.window + shape.length, device=device)
    return (k_at <= q_at) & (k_at > q_at - shape.window)


def concatenated(shape: Shape, device: str) -> list[Tensor]:
    """Leaves q, k, v with the prefix in front and heads repeated, as PyTorch's attention takes them; no rotation."""
    q, k, v, pk, pv = shape.tensors(device)
    group = shape.heads // shape.kv
    joined = (torch.cat(pair, 2).repeat_interleave(group, 1) for pair in ((pk, k), (pv, v)))
    return [x.requires_grad_() for x in (q, *joined)]


def theirs(function: Callable[..., Tensor], leaves: list[Tensor], order: int) -> dict[str, Callable[[], Any]]:
    """The stages that autograd gives for `function`, each timed alone on a kept graph."""
    stages: dict[str, Callable[[], Any]] = {"forward": partial(function, *leaves)}
    out = function(*leaves)
    cotangent = torch.randn_like(out).requires_grad_()
    if order >= 1:
        stages["backward"] = partial(torch.autograd.grad, out, leaves, cotangent, retain_graph=True)
    if order >= 2:
        first = torch.autograd.grad(out, leaves, cotangent, create_graph=True)
        cotangents = [torch.randn_like(g) for g in first]
        stages["double"] = partial(torch.autograd.grad, first, [*leaves, cotangent], cotangents, retain_graph=True)
    return stages


def math_sdpa(shape: Shape, device: str) -> dict[str, Callable[[], Any]]:
    """PyTorch's materialised attention, the only one of its own with two derivatives."""
    seen = mask(shape, device)

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            return F.scaled_dot_product_attention(q, k, v, attn_mask=seen)

    return theirs(function, concatenated(shape, device), 2)


def flash_sdpa(shape: Shape, device: str) -> dict[str, Callable[[], Any]]:
    """PyTorch's flash kernel, forward alone: no window, so every query sees every key."""

    def function(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
            return F.scaled_dot_product_attention(q, k, v)

    return theirs(function, concatenated(shape, device), 0)


def flex(shape: Shape, device: str) -> dict[str, Callable[[], Any]]:
    """FlexAttention, compiled, with the window as a block mask; it has one derivative."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    def near(b: Tensor, h: Tensor, q: Tensor, k: Tensor) -> Tensor:
        return (k <= q + shape.window) & (k > q)

    blocks = create_block_mask(near, None, None, shape.length, shape.window + shape.length, device=device)
    compiled = torch.compile(flex_attention, dynamic=False)
    return theirs(partial(compiled, block_mask=blocks), concatenated(shape, device), 1)


def measure(make: Callable[[], dict[str, Callable[[], Any]]], stage: str, shape: Shape, device: str) -> dict[str, Any]:
    """Milliseconds, useful TFLOP/s, and memory above what was held before."""
    action = make()[stage]
    peak = 0
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        action()
        torch.cuda.synchronize()
        peak = torch.cuda.max_memory_allocated() - held
    times = quantiles(action, device=device)
    useful = shape.flop(stage.removesuffix("-inner")) / times["ms"] / 1e9
    return {**times, "tflops": round(useful, 1), "peak_mib": peak >> 20}


def main() -> None:
    """Runs what is not done yet and prints the table."""
    job = Job("attention_bench", __doc__)
    small = job.options.small
    first = next(iter(attention_correct.cases(small).values()))
    dtype = torch.float32 if job.device == "cpu" else torch.bfloat16
    for how in attention_correct.HOW.values():
        verdict = attention_correct.compare(first, dtype, job.device, how)
        if not verdict["passed"]:
            raise SystemExit(f"the kernels do not agree with the reference, so nothing is timed: {verdict}")
    length, window = (32, 48) if small else (1024, 8192)
    shapes = {"125m": Shape(1, 12, 12, length, window, 64)}
    if small:
        shapes = {"tiny": Shape(1, 2, 1, length, window, 16)}
    else:
        shapes["125m-batch4"] = Shape(4, 12, 12, length, window, 64)
        shapes["gqa4-batch4"] = Shape(4, 12, 3, length, window, 64)
        shapes["760m"] = Shape(1, 16, 16, length, window, 96)
        shapes["d80"] = Shape(1, 32, 32, length, window, 80)
        shapes["d128"] = Shape(1, 16, 16, length, window, 128)
    for label, shape in shapes.items():
        kinds: dict[str, tuple[Callable[[], dict[str, Callable[[], Any]]], tuple[str, ...]]] = {
            "turned_on_load": (partial(ours, shape, job.device, True), (*PRODUCTS, "backward-inner", "double-inner")),
            "turned_before": (partial(ours, shape, job.device, False), (*PRODUCTS, "backward-inner", "double-inner")),
            "sdpa-math": (partial(math_sdpa, shape, job.device), tuple(PRODUCTS)),
        }
        if job.device == "cuda":
            kinds["flex"] = (partial(flex, shape, job.device), ("forward", "backward"))
            kinds["sdpa-flash-no-window"] = (partial(flash_sdpa, shape, job.device), ("forward",))
        for kind, (make, stages) in kinds.items():
            for stage in stages:
                job.run(f"{label}/{kind}/{stage}", partial(measure, make, stage, shape, job.device))
    judge(job)
    job.finish(("ms", "tflops", "peak_mib", "floor", "times_math", "passed"))


def judge(job: Job) -> None:
    """The floors of d=64: the better rotation counts, at the better of the batches."""
    for stage, floor in FLOORS.items():
        own = {
            name: row
            for name, row in job.cases.items()
            if name.startswith("125m") and "/turned_" in name and name.endswith(f"/{stage}") and "tflops" in row
        }
        if not own:
            continue
        name = max(own, key=lambda key: own[key]["tflops"])
        row = {"tflops": own[name]["tflops"], "floor": floor, "passed": own[name]["tflops"] >= floor}
        plain = job.cases.get(f"{name.split('/')[0]}/sdpa-math/{stage}", {})
        if stage == "double" and "ms" in plain:
            row["times_math"] = round(plain["ms"] / own[name]["ms"], 2)
            row["passed"] = row["passed"] and row["times_math"] >= 3
        job.cases[f"floor/{stage}"] = row
    job.save()


if __name__ == "__main__":
    main()
