"""What RMSNorm, QK-norm, RoPE and the cache write cost: a step of reading and of learning with each left out.

A kernel that fused them with their neighbours could save at most what a step saves without them. Each step is one
mini-batch behind a full window. Weights are random: their values cost nothing. Needs torch, and triton on a GPU.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from ttt_kernels.inner_update import inner_update

from ttt_memory.model import blocks as model_blocks
from ttt_memory.model import transformer
from ttt_memory.model.cache import LayerCache, PassCache
from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.model.transformer import Transformer, working

blocks: Any = model_blocks
"""The module whose operations are exchanged."""

SHAPES = {
    "smollm2": ModelConfig(
        vocab_size=49152, hidden=576, layers=30, heads=9, kv_heads=3, head_dim=64, mlp=1536, dynamic_layers=8,
        dynamic_mlp=1536, window=1024, inner=InnerConfig(mini_batch=512),
    ),
    "tiny": ModelConfig(
        vocab_size=64, hidden=32, layers=3, heads=2, kv_heads=1, head_dim=16, mlp=24, dynamic_layers=1, dynamic_mlp=24,
        window=16, sinks=2, inner=InnerConfig(mini_batch=8),
    ),
}  # fmt: skip

LEFT_OUT = {
    "nothing": (),
    "norms": ("norms",),
    "rope": ("rope",),
    "cache": ("cache",),
    "all": ("norms", "rope", "cache"),
}


@contextmanager
def without(parts: tuple[str, ...]) -> Iterator[None]:
    """Inside, norms only convert their input, attention does not rotate, and a full cache stays as it is."""
    attention, extend = blocks.attention, LayerCache.extend

    def plain(x: Tensor, scale: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
        return x.to(dtype)

    def unturned(*args: Any, **options: Any) -> Tensor:
        out: Tensor = attention(*args, **{**options, "rope": None})
        return out

    def kept(self: LayerCache, k: Tensor, v: Tensor, config: ModelConfig) -> LayerCache:
        return self if self.recent.k.shape[2] == config.window else extend(self, k, v, config)

    with ExitStack() as stack:
        if "norms" in parts:
            for module in (blocks, transformer):
                stack.enter_context(patch.object(module, "rms_norm", plain))
        if "rope" in parts:
            stack.enter_context(patch.object(blocks, "attention", unturned))
        if "cache" in parts:
            stack.enter_context(patch.object(LayerCache, "extend", kept))
        yield


def steps(net: Transformer) -> dict[str, Callable[[], None]]:
    """One step of reading and one of learning behind a full window, to be called any number of times."""
    on_cpu = net.embedding.device.type == "cpu"
    impl, loss, write = ("flash", "chunked", "in_place") if on_cpu else ("auto", "auto", "triton_in_place")
    batch, window = net.config.inner.mini_batch, net.config.window
    assert window is not None
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(net.config.vocab_size, (1, window + batch + 1), generator=generator).to(net.embedding.device)
    weights = [type(w)(w.gate_up.detach(), w.down.detach()) for w in working(net.initial_state(), net.dtype)]
    cache = net.empty_cache()
    with torch.no_grad():
        for part in torch.split(ids[:, :window], batch, dim=1):
            _, cache = net.read(part, weights, cache, impl=impl)
    tokens, targets = ids[:, window:-1], ids[0, window + 1 :]
    held = PassCache(cache.prefix.detach(), cache.suffix.detach())
    masters = [tensor.float().clone() for layer in weights for tensor in layer]
    rates = torch.zeros(len(masters), device=net.embedding.device)

    def read() -> None:
        with torch.no_grad():
            net.read(tokens, weights, held, impl=impl)

    def learn() -> None:
        with torch.no_grad():
            x, _ = net.prefix(net.embed(tokens), held.prefix, impl=impl)
        moving = [type(w)(*(t.detach().requires_grad_() for t in w)) for w in weights]
        hidden, _ = net.suffix(x, moving, held.suffix, impl=impl)
        nll = net.nll(hidden[0], targets, impl=loss).mean()
        grads = torch.autograd.grad(nll, [t for layer in moving for t in layer])
        inner_update(masters, grads, rates, impl=write)

    return {"read": read, "learn": learn}


def shares(action: Callable[[], None], repeats: int, device: str) -> dict[str, Any]:
    """Median milliseconds of the whole step, and the median share saved by each thing left out, taken in turns."""
    taken: dict[str, list[float]] = {name: [] for name in LEFT_OUT}
    for _ in range(repeats + 1):
        for name, parts in LEFT_OUT.items():
            with without(parts):
                taken[name].append(_milliseconds(action, device))
    whole = taken.pop("nothing")[1:]
    row: dict[str, Any] = {"ms": round(statistics.median(whole), 3), "repeats": repeats}
    for name, times in taken.items():
        saved = sorted(1 - less / all_ for less, all_ in zip(times[1:], whole, strict=True))
        row[f"share_{name}"] = round(statistics.median(saved), 4)
        row[f"share_{name}_p20_p80"] = [round(saved[int(q * (len(saved) - 1))], 4) for q in (0.2, 0.8)]
    return row


def _milliseconds(action: Callable[[], None], device: str) -> float:
    if device == "cpu":
        # On one thread: this process's own time, in which others have little part.
        begun = time.process_time()
        action()
        return 1e3 * (time.process_time() - begun)
    torch.cuda.synchronize()
    begun = time.perf_counter()
    action()
    torch.cuda.synchronize()
    return 1e3 * (time.perf_counter() - begun)


def build(config: ModelConfig, device: str, dtype: torch.dtype) -> Transformer:
    """A network of one shape, weights drawn with seed 0 and constant."""
    net = Transformer(config)
    net.initialise(torch.Generator().manual_seed(0))
    return net.to(device, dtype).requires_grad_(False)


def main(arguments: list[str] | None = None) -> None:
    """Measures on the CPU; `gpu/norms.py` does on a GPU."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shape", choices=list(SHAPES), default="smollm2")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    low = getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()
    result: dict[str, Any] = {
        "measurement": "kernels_norms",
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "command": f"PYTHONPATH=.:kernels python benchmarks/kernels_norms.py --repeats {options.repeats}",
        "shape": options.shape,
        "machine": {
            "processor": platform.machine(),
            "capability": torch.backends.cpu.get_cpu_capability(),
            "threads": 1,
            "clock": "processor time of this process",
            "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "rows": [],
    }
    for dtype in (torch.bfloat16,) if low else (torch.float32,):
        for name, action in steps(build(SHAPES[options.shape], "cpu", dtype)).items():
            row = {"step": name, "dtype": str(dtype).removeprefix("torch."), **shares(action, options.repeats, "cpu")}
            result["rows"].append(row)
            print(json.dumps(row), flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
