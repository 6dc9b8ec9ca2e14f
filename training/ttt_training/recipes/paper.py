"""The paper's recipes from scratch (arXiv 2512.23675, Table 3 and its code's configurations), and its baselines.

8K pre-training, then extension to 32K or 128K with 5 % of the tokens. TTT-E2E, and the baselines with the wider MLP
that gives them the same number of parameters: full attention, sliding window, hybrid (five windowed blocks, then a full
one).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_training.config import TrainConfig
from ttt_training.recipes.recipe import Phase, Recipe

WINDOW = 8192
PRE_TRAINING = 8192
EXTENSIONS = (32_768, 131_072)
FULL_ATTENTION_THETA = {8192: 5e5, 16_384: 1e6, 32_768: 2e6, 65_536: 5e6, 131_072: 1e7}
"""RoPE base of full attention by length; windowed models keep the first at every length."""
BASELINES = ("full", "swa", "hybrid51")


@dataclass(frozen=True)
class Size:
    """One row of Table 3. `mlp` is the baselines' width, `e2e_mlp` that of both MLPs of TTT-E2E; `batch` is at 8K."""

    layers: int
    hidden: int
    heads: int
    mlp: int
    e2e_mlp: int
    suffix: int
    steps: int
    batch: int
    lr: float
    extension_steps: int


SIZES = {
    "125m": Size(12, 768, 12, 2048, 1664, 3, 4800, 64, 3e-3, 120),
    "350m": Size(24, 1024, 16, 2816, 2304, 6, 13_500, 64, 1.5e-3, 337),
    "760m": Size(24, 1536, 16, 4096, 3328, 6, 29_000, 64, 1.25e-3, 725),
    "1.3b": Size(24, 2048, 32, 5376, 4352, 6, 50_000, 64, 1e-3, 1250),
    "3b": Size(32, 2560, 32, 6912, 5632, 8, 52_000, 128, 8e-4, 1300),
}
FINE_TUNING_LR = 4e-4


def paper(size: str, *, method: str = "e2e", extension: int = EXTENSIONS[0]) -> Recipe:
    """The paper's training of one size.

    Args:
        size: a key of SIZES.
        method: `e2e`, or a baseline: `full`, `swa`, `hybrid51`.
        extension: length of the second phase.
    """
    shape = SIZES[size]
    first = Phase(
        name="pre-train",
        config=_config(shape, method, PRE_TRAINING),
        training=_training(method, steps=shape.steps, batch=shape.batch, lr=shape.lr),
        length=PRE_TRAINING,
    )
    # 5 % of the tokens in the table's number of steps: half the sequences a step at 32K, an eighth at 128K.
    batch = shape.batch * PRE_TRAINING * 2 // extension
    training = _training(method, steps=shape.extension_steps, batch=batch, lr=FINE_TUNING_LR)
    second = Phase(
        name=f"extend-{extension // 1024}k",
        config=_config(shape, method, extension),
        training=replace(training, inner_warm_up=0, inner_start=1.0),
        length=extension,
    )
    name = size if method == "e2e" else f"{size}-{method}"
    return Recipe(
        name=name if extension == EXTENSIONS[0] else f"{name}-128k",
        about=f"{_METHODS[method]}, {size.upper()} from scratch at 8K, then {extension // 1024}K",
        base=None,
        tokenizer=None,
        phases=(first, second),
    )


_METHODS = {
    "e2e": "TTT-E2E as in the paper",
    "full": "baseline: full attention",
    "swa": "baseline: sliding window of 8K",
    "hybrid51": "baseline: five windowed blocks, then one of full attention",
}


def _config(size: Size, method: str, length: int) -> ModelConfig:
    e2e = method == "e2e"
    attention: dict[str, Any] = {
        "window": None if method == "full" else WINDOW,
        "full_attention_every": 6 if method == "hybrid51" else 0,
        "rope_theta": FULL_ATTENTION_THETA[length] if method == "full" else FULL_ATTENTION_THETA[PRE_TRAINING],
    }
    return ModelConfig(
        vocab_size=128_256,
        hidden=size.hidden,
        layers=size.layers,
        heads=size.heads,
        kv_heads=size.heads,
        head_dim=size.hidden // size.heads,
        mlp=size.e2e_mlp if e2e else size.mlp,
        dynamic_layers=size.suffix if e2e else 0,
        dynamic_mlp=size.e2e_mlp if e2e else 0,
        block="paper",
        sinks=0,
        norm_eps=1e-6,
        tied=True,
        start_token=128_000,
        segment_tokens=length,
        context_tokens=WINDOW,
        inner=InnerConfig(rule="sgd", rate=1.0, clip=1.0, mini_batch=1024),
        **attention,
    )


def _training(method: str, *, steps: int, batch: int, lr: float) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        batch=batch,
        train="all",
        inner="fold" if method == "e2e" else "none",
        lr=lr,
        floor=1e-5,
        rate_lr=0.0,  # the paper's inner rate is 1 and not learned
        rate_floor=0.0,
        warm_up=0.1,
        betas=(0.9, 0.95),
        weight_decay=0.1,
        clip=1.0,
        inner_warm_up=steps // 10 if method == "e2e" else 0,
        inner_start=0.1 if method == "e2e" else 1.0,
    )
