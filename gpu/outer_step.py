"""One outer step of the 125M and 760M shapes at 8K on the GPU: our operations beside PyTorch's math attention.

Floor: at least twice as fast as math attention, at most half its peak of memory.
Run: PYTHONPATH=.:kernels:training:adapters python gpu/outer_step.py
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from jobs import Job, quantiles
from models import build, using
from torch import Tensor

from ttt_memory.model.inner import write
from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer, working


def outer_loss(net: Transformer, tokens: Tensor, impl: str) -> Tensor:
    """Mean loss over mini-batches, each before its own inner step."""
    step = net.config.inner.mini_batch
    cache, state, losses = net.empty_cache(), net.initial_state(), []
    for first in range(0, tokens.shape[1] - 1, step):
        targets = tokens[0, first + 1 : first + step + 1]
        hidden, cache = net.read(tokens[:, first : first + len(targets)], working(state, net.dtype), cache, impl=impl)
        losses.append(net.nll(hidden[0], targets).mean())
        weights = [t for layer in zip(state.gate, state.up, state.down, strict=True) for t in layer]
        grads = torch.autograd.grad(losses[-1], weights, create_graph=True)
        after = write(weights, grads, net.inner_rates, net.config.inner).weights
        state = FastWeights(gate=after[0::3], up=after[1::3], down=after[2::3])
    return torch.stack(losses).mean()


def case(shape: str, length: int, how: str, device: str, dtype: torch.dtype) -> dict[str, Any]:
    """Milliseconds, peak memory, and the loss and gradient norm, which have to agree between ways."""
    net = build(shape, device, dtype)
    tokens = torch.randint(net.config.vocab_size, (1, length + 1), generator=torch.Generator().manual_seed(1)).to(
        device
    )
    seen: dict[str, float] = {}

    def once() -> None:
        net.zero_grad(set_to_none=True)
        loss = outer_loss(net, tokens, impl)
        loss.backward()  # type: ignore[no-untyped-call]
        norms = torch.stack([p.grad.float().norm() for p in net.parameters() if p.grad is not None])
        seen.update(loss=float(loss.detach()), gradient_norm=float(norms.norm()))

    with using(how) as impl:
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        try:
            once()
        except torch.OutOfMemoryError:
            return {"out_of_memory": True}
        peak = torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0
        return {**quantiles(once, seconds=5.0, device=device), "peak_gb": round(peak, 2), **seen}


def main() -> None:
    """Ours first: the others may not fit."""
    job = Job("outer_step", __doc__)
    small = job.options.small
    dtype = torch.float32 if small else torch.bfloat16
    for shape in ("small",) if small else ("125M", "760M"):
        for how in ("reference", "math") if small else ("ours", "math", "reference"):
            length = 64 if small else 8192
            job.run(f"{shape} {how}", partial(case, shape, length, how, job.device, dtype))
        ours, other = job.cases.get(f"{shape} ours", {}), job.cases.get(f"{shape} math", {})
        if "ms" in ours and "ms" in other:
            ours["speedup"] = round(other["ms"] / ours["ms"], 2)
            ours["memory_share"] = round(ours["peak_gb"] / other["peak_gb"], 2)
            ours["same_loss"] = abs(ours["loss"] - other["loss"]) < 0.02
            ours["passed"] = ours["speedup"] >= 2 and ours["memory_share"] <= 0.5 and ours["same_loss"]
            job.save()
    job.finish(("ms", "peak_gb", "loss", "gradient_norm", "speedup", "memory_share", "out_of_memory", "passed"))


if __name__ == "__main__":
    main()
