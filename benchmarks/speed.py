"""Tokens per second of reading, learning and generating, beside llama.cpp, interleaved in one process.

    python benchmarks/speed.py OUT.json [--quick]

Reading: the network's pass over a text under fast weights, no loss, no writes. Scoring: the same with every token's
loss. Learning: the fold, a write after every mini-batch. Generating: greedy, behind texts of three lengths.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import llama
import machine
import numpy as np
import texts
import torch

from ttt_memory.model.fold import Segment, fast_impl, read, score
from ttt_memory.model.generate import Sampling, generate
from ttt_memory.model.loaded import LoadedModel
from ttt_memory.model.registry import load_model
from ttt_memory.model.transformer import working

Job = Callable[[], dict[str, float]]
FULL = {"lengths": [512, 4096, 8000], "behind": [64, 4096, 8000], "generated": 64, "repeats": 3, "places": 16_384}
QUICK = {"lengths": [128, 512], "behind": [64, 512], "generated": 8, "repeats": 1, "places": 1_024}


def main() -> None:
    """Measure, and write the result in one piece."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="short texts, once: whether it works, not how fast")
    options = parser.parse_args()
    settings: dict[str, Any] = dict(QUICK if options.quick else FULL)
    model = load_model()
    result = machine.result("speed", model, settings)
    if llama.installed():
        result["llama_repacking"] = llama.repacking_works()
    result["tokens_per_second"] = measure(model, settings, threads=int(result["machine"]["threads"]))
    result["reading_by_place"] = places(model, settings["places"], settings["repeats"])
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def measure(model: LoadedModel, settings: dict[str, Any], *, threads: int) -> dict[str, list[float]]:
    """Every rate once a repeat, in an order that turns by one place each time."""
    ids = texts.tokens(model.tokenizer, max(*settings["lengths"], *settings["behind"]) + settings["generated"])
    rivals = _rivals(threads, len(ids) + 64)
    lengths, behind, count = settings["lengths"], settings["behind"], settings["generated"]
    jobs: list[Job] = [partial(_ours, f"read.{n}", _read, model, ids[:n]) for n in lengths]
    jobs += [partial(_ours, f"score.{n}", _fold, model, ids[:n], score) for n in lengths[-1:]]
    jobs += [partial(_ours, f"learn.{n}", _fold, model, ids[:n], read) for n in lengths]
    jobs += [partial(_ours, f"generate.{n}", _generate, model, ids[:n], count) for n in behind]
    for name, rival in rivals.items():
        jobs += [partial(_theirs, name, rival, ids, n, count) for n in sorted({*lengths, *behind})]
    found: dict[str, list[float]] = defaultdict(list)
    _read(model, ids[:128])  # the first pass loads the pages of the weights
    for repeat in range(settings["repeats"]):
        for job in jobs[repeat:] + jobs[:repeat]:
            for name, rate in job().items():
                found[name].append(round(rate, 2))
                print(f"  repeat {repeat + 1} of {settings['repeats']}   {name:<24}{rate:10.1f} tokens/s", flush=True)
    for rival in rivals.values():
        rival.close()
    return dict(sorted(found.items()))


@torch.no_grad()
def places(model: LoadedModel, count: int, repeats: int) -> list[tuple[int, list[float]]]:
    """(tokens read before, tokens/s of every repeat) of each eighth of one long pass without writes."""
    parts = torch.from_numpy(texts.tokens(model.tokenizer, count).astype(np.int64)).chunk(8)
    rates: list[list[float]] = [[] for _ in parts]
    for _ in range(repeats):
        weights, cache = working(model.initial_state(), model.net.dtype), model.net.empty_cache()
        for part, found in zip(parts, rates, strict=True):
            started = time.perf_counter()
            for block in torch.split(part, model.config.inner.mini_batch):
                cache = model.net.read(block[None], weights, cache, impl=fast_impl(model.net))[1]
            found.append(round(len(part) / (time.perf_counter() - started), 2))
    return [(index * len(parts[0]), found) for index, found in enumerate(rates)]


@torch.no_grad()
def _read(model: LoadedModel, ids: np.ndarray) -> float:
    weights, cache = working(model.initial_state(), model.net.dtype), model.net.empty_cache()
    started = time.perf_counter()
    for block in torch.split(torch.from_numpy(ids.astype(np.int64)), model.config.inner.mini_batch):
        cache = model.net.read(block[None], weights, cache, impl=fast_impl(model.net))[1]
    return len(ids) / (time.perf_counter() - started)


def _fold(model: LoadedModel, ids: np.ndarray, fold: Callable[..., Generator[Any, None, Any]]) -> float:
    started = time.perf_counter()
    for _ in fold(model, model.initial_state(), Segment(ids[:0], ids)):
        pass
    return len(ids) / (time.perf_counter() - started)


def _generate(model: LoadedModel, prompt: np.ndarray, count: int) -> float:
    """Tokens a second after the first one, whose step also sets up the decoder; the last piece is what is left over."""
    blocks = -(-(len(prompt) - 1) // model.config.inner.mini_batch)
    moments = [
        time.perf_counter() for _ in generate(model, model.initial_state(), prompt, Sampling(max_tokens=count + 1))
    ][blocks:-1]
    if len(moments) < count // 2:
        raise RuntimeError(f"The model ended its text after {len(moments)} tokens; too few to time.")
    return (len(moments) - 1) / (moments[-1] - moments[0])


def _rivals(threads: int, context: int) -> dict[str, llama.LlamaCpp]:
    if not llama.installed():
        print("  llama-cpp-python is not installed: ours alone")
        return {}
    repack = llama.repacking_works()
    if not repack:
        print("  llama.cpp crashes with its default weight layout on this machine; measured without it")
    return {
        name: llama.LlamaCpp(threads, context, flash=flash, repack=repack)
        for name, flash in (("llama", False), ("llama_flash", True))
    }


def _ours(name: str, measure: Callable[..., float], *arguments: Any) -> dict[str, float]:
    return {name: measure(*arguments)}


def _theirs(name: str, rival: llama.LlamaCpp, ids: np.ndarray, length: int, count: int) -> dict[str, float]:
    rates = rival.rates(ids[:length], ids[length : length + count])
    return {f"{name}.prefill.{length}": rates.prefill, f"{name}.generate.{length}": rates.decode}


if __name__ == "__main__":
    main()
