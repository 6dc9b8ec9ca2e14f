"""Prefill on the GPU: seconds per 1K tokens and peak memory at 8K, 32K and 128K, full attention, SWA and TTT-E2E.

125M and 760M shapes, random weights. The paper has TTT-E2E 2.7 times faster than full attention at 128K.
Run: PYTHONPATH=.:kernels:training:adapters python gpu/prefill.py
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from jobs import Job
from models import build, using
from torch import Tensor
from ttt_kernels.inner_update import inner_update

from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer, working


def full(net: Transformer, tokens: Tensor) -> None:
    """The plain Transformer in one pass, flash attention of PyTorch."""
    with torch.no_grad(), using("flash" if tokens.is_cuda else "math") as impl:
        net.read(tokens, None, net.empty_cache(), impl=impl)


def window(net: Transformer, tokens: Tensor, how: str) -> None:
    """Sliding windows, a mini-batch at a time; no fast weights."""
    step = net.config.inner.mini_batch
    with torch.no_grad(), using(how) as impl:
        cache = net.empty_cache()
        for part in torch.split(tokens, step, dim=1):
            _, cache = net.read(part, None, cache, impl=impl)


def ttt(net: Transformer, tokens: Tensor, how: str) -> None:
    """Reading with one inner step per mini-batch; the gradient stops at the blocks with dynamic MLPs."""
    step, config = net.config.inner.mini_batch, net.config.inner
    state = net.initial_state()
    masters = [t.detach().clone() for layer in zip(state.gate, state.up, state.down, strict=True) for t in layer]
    rates = net.inner_rates.detach().float().repeat_interleave(3)
    with using(how) as impl:
        cache = net.empty_cache()
        for first in range(0, tokens.shape[1] - 1, step):
            targets = tokens[0, first + 1 : first + step + 1]
            part = tokens[:, first : first + len(targets)]
            with torch.no_grad():
                x, prefix = net.prefix(net.embed(part), cache.prefix, impl=impl)
            leaves = [m.detach().requires_grad_() for m in masters]
            fast = working(FastWeights(tuple(leaves[0::3]), tuple(leaves[1::3]), tuple(leaves[2::3])), net.dtype)
            hidden, suffix = net.suffix(x, fast, cache.suffix, impl=impl)
            grads = torch.autograd.grad(net.nll(hidden[0], targets).mean(), leaves)
            write = "triton_in_place" if how == "ours" else "in_place"
            inner_update(masters, grads, rates, clip=config.clip, impl=write)
            cache = cache._replace(prefix=prefix, suffix=suffix.detach())


def case(shape: str, length: int, kind: str, device: str, dtype: torch.dtype, how: str) -> dict[str, Any]:
    """Best of three runs after one to warm up, or one where that takes long."""
    net = build(shape, device, dtype)
    net.requires_grad_(False)
    if kind == "full":
        net.config = replace(net.config, window=None)
        for block in net.layers():
            block.config = net.config
    tokens = torch.randint(net.config.vocab_size, (1, length + 1), generator=torch.Generator().manual_seed(1)).to(
        device
    )
    run: Any = {"full": full, "window": partial(window, how=how), "ttt": partial(ttt, how=how)}[kind]
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    taken: list[float] = []
    try:
        while len(taken) < 4 and sum(taken) < 40:
            begun = time.perf_counter()
            run(net, tokens)
            if device == "cuda":
                torch.cuda.synchronize()
            taken.append(time.perf_counter() - begun)
    except torch.OutOfMemoryError:
        return {"out_of_memory": True}
    peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
    best = min(taken[1:] or taken)
    return {"seconds_per_1k": round(best / length * 1024, 5), "peak_gb": round(peak, 2), "runs": len(taken)}


def main() -> None:
    """Short before long, so that a cut leaves whole rows of the table."""
    job = Job("prefill", __doc__)
    small = job.options.small
    dtype, how = (torch.float32, "reference") if small else (torch.bfloat16, "ours")
    for length in (64, 128) if small else (8192, 32768, 131072):
        for shape in ("small",) if small else ("125M", "760M"):
            for kind in ("full", "window", "ttt"):
                name = f"{shape} {length} {kind}"
                job.run(name, partial(case, shape, length, kind, job.device, dtype, how))
            slow, fast = (job.cases.get(f"{shape} {length} {kind}", {}) for kind in ("full", "ttt"))
            if "seconds_per_1k" in slow and "seconds_per_1k" in fast:
                fast["times_faster_than_full"] = round(slow["seconds_per_1k"] / fast["seconds_per_1k"], 2)
                job.save()
    job.finish(("seconds_per_1k", "peak_gb", "times_faster_than_full", "out_of_memory"))


if __name__ == "__main__":
    main()
