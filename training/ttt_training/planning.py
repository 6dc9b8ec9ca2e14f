"""What a run will take, said before it begins."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from ttt_memory.model.transformer import Transformer
from ttt_training.recipes.recipe import Phase
from ttt_training.trained import trained_names

_SHARE_OF_PEAK = 0.25
"""Part of a plain product's speed that training reaches: an order of magnitude, until there is a log to ask."""


@dataclass(frozen=True)
class Plan:
    """One phase in numbers.

    Attributes:
        parameters, trained: of the network, and those that the outer loop moves.
        weight_bytes: the network, fp32 masters, their gradients and AdamW's two moments.
        kept_bytes: fast weights, keys and values kept while reading one sequence.
        tokens: predicted tokens.
        flops_per_token: about; forward, inner gradient, and the outer loop's way back.
        tokens_per_second: about, or as the run's log has it; 0 where it was not asked for.
    """

    parameters: int
    trained: int
    weight_bytes: int
    kept_bytes: int
    tokens: int
    flops_per_token: float
    tokens_per_second: float

    @property
    def seconds(self) -> float:
        """About how long the phase takes; 0 if unknown."""
        return self.tokens / self.tokens_per_second if self.tokens_per_second else 0.0


def plan(
    phase: Phase, *, dtype: torch.dtype, device: str = "cpu", out: Path | None = None, measure: bool = True
) -> Plan:
    """The phase in numbers. `measure` times a product on the device; a log in `out` is believed instead."""
    config, training = phase.config, phase.training
    with torch.device("meta"):
        net = Transformer(config)
    sizes = {name: parameter.numel() for name, parameter in net.named_parameters()}
    names = set(trained_names(net, training.train))
    bytes_each = torch.empty((), dtype=dtype).element_size()
    trained = sum(sizes[name] for name in names)
    writes = training.inner == "fold"
    state = sum(size for name, size in sizes.items() if "w0_" in name) if writes else 0
    window = min(phase.length, config.segment_tokens) if config.window is None else config.window
    keys = 2 * config.dynamic_layers * config.kv_heads * config.head_dim * min(window, phase.length) * bytes_each
    blocks = -(-phase.length // (config.inner.mini_batch * training.every))
    flops = _flops(net, sizes, names, window, second=writes and training.order == 2, writes=writes)
    speed = logged_speed(out) or (_product_speed(dtype, device) * _SHARE_OF_PEAK / flops if measure else 0.0)
    return Plan(
        parameters=sum(sizes.values()),
        trained=trained,
        weight_bytes=sum(sizes.values()) * bytes_each + trained * 16,
        kept_bytes=blocks * (2 * 4 * state + keys),
        tokens=phase.tokens,
        flops_per_token=flops,
        tokens_per_second=speed,
    )


def lines(phase: Phase, numbers: Plan) -> list[str]:
    """The plan for people."""
    training, config = phase.training, phase.config
    window = "full attention" if config.window is None else f"window {config.window:,}"
    if config.full_attention_every:
        window += f" and full attention in every {config.full_attention_every}th block"
    writes = f"a write every {config.inner.mini_batch:,} tokens, decay {config.inner.decay:g}"
    graphs = "the graph of one mini-batch"
    if training.inner == "none" and config.dynamic_layers:
        graphs = f"graphs of mini-batches in what is left of {training.memory_gb:g} GB"
    mode = "without writes" if training.inner == "none" else writes
    parts = [
        f"{phase.name}: {training.steps:,} steps of {training.batch} x {phase.length:,} tokens "
        f"= {numbers.tokens / 1e6:,.1f}M tokens; {100 * phase.memory_share:.0f} % memory-shaped",
        f"  model       {config.layers} blocks, {config.dynamic_layers} of them dynamic, {window}, {mode}",
        f"  parameters  {numbers.parameters / 1e6:,.1f}M, {numbers.trained / 1e6:,.1f}M trained ({training.train})",
        f"  memory      {numbers.weight_bytes / 1e9:,.2f} GB weights, masters and moments, "
        f"{numbers.kept_bytes / 1e9:,.2f} GB kept for a sequence, and {graphs}",
        f"  learning    AdamW, rate {training.lr:g} to {training.floor:g}, seed {training.seed}",
    ]
    if numbers.tokens_per_second:
        parts.append(f"  time        about {_duration(numbers.seconds)} at {numbers.tokens_per_second:,.0f} tokens/s")
    return parts


def _flops(
    net: Transformer, sizes: dict[str, int], trained: set[str], window: int, *, second: bool, writes: bool
) -> float:
    """Per predicted token: two for every weight and product in a forward, and as many again for every way back."""
    config = net.config
    suffix = tuple(f"blocks.{i}." for i in range(config.prefix_layers, config.layers))
    head = config.vocab_size * config.hidden
    late = sum(size for name, size in sizes.items() if name.startswith(suffix)) if suffix else 0
    early = sum(size for name, size in sizes.items() if name.startswith("blocks.")) - late
    attention = 2 * config.heads * config.head_dim * window
    late += config.dynamic_layers * attention
    early += config.prefix_layers * attention
    reaches_prefix = any(name.startswith("blocks.") and not name.startswith(suffix or ("-",)) for name in trained)
    passes = 1 + (2 if writes else 0) + (2 if not second else 6)
    return 2.0 * ((late + head) * passes + early * (4 if reaches_prefix else 1))


def _product_speed(dtype: torch.dtype, device: str) -> float:
    """FLOP per second of a matrix product."""
    size = 1024 if device == "cpu" else 8192
    a, b = (torch.ones(size, size, dtype=dtype, device=device) for _ in range(2))
    best = 0.0
    for _ in range(4):
        begun = time.perf_counter()
        float((a @ b)[0, 0])
        best = max(best, 2 * size**3 / (time.perf_counter() - begun))
    return best


def logged_speed(out: Path | None) -> float:
    """Median tokens per second of the last outer steps in a run's log; 0 without one."""
    speeds = [speed for _, speed in _log(out)[-50:]]
    return statistics.median(speeds) if speeds else 0.0


def logged_seconds(out: Path) -> float:
    """Seconds that the outer steps in a run's log took, whatever happened between them."""
    seconds, before = 0.0, 0
    for tokens, speed in _log(out):
        seconds, before = seconds + (tokens - before) / speed, tokens
    return seconds


def _log(out: Path | None) -> list[tuple[int, float]]:
    """Tokens so far, and tokens per second, by outer step."""
    if out is None or not (out / "log.jsonl").is_file():
        return []
    found = []
    for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            found.append((int(record["tokens"]), float(record["tokens_per_second"])))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:,.0f} seconds"
