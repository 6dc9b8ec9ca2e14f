"""Meta-learning on a pretrained Llama-family checkpoint: what is dynamic is trained, the rest stays as published."""

from __future__ import annotations

from dataclasses import replace

from ttt_memory.model.config import ModelConfig
from ttt_training.config import TrainConfig
from ttt_training.recipes.recipe import Phase, Recipe

DEFAULT_BASE = "smollm2-135m"
ABOUT = "a pretrained Llama-family model learns to write its dynamic MLPs"
LENGTH, TOKENS = 6144, 3_000_000
DECAY = 0.01
"""Of the distance to W0, given back by every write: without it reading raised the loss of other texts by more than 0.02
nats (docs/decisions/0013)."""


def retrofit(config: ModelConfig, *, base: str = DEFAULT_BASE) -> Recipe:
    """The retrofit of one base model, half of it on memory-shaped sequences.

    Args:
        config: of the base as it is loaded: which blocks are dynamic, the window, the inner loop but for its decay.
        base: its name or path.
    """
    config = replace(config, inner=replace(config.inner, decay=DECAY))
    training = TrainConfig(steps=round(TOKENS / LENGTH), batch=1, train="dynamic", lr=8e-4, floor=8e-5, rate_lr=1e-2)
    return Recipe(
        name="retrofit",
        about=ABOUT,
        base=base,
        tokenizer=base,
        phases=(Phase("retrofit", config, training, length=LENGTH, memory_share=0.5),),
    )
