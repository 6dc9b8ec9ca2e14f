"""Meta-learning on a pretrained Llama-family checkpoint: what is dynamic is trained, the rest stays as published."""

from __future__ import annotations

from ttt_memory.model.config import ModelConfig
from ttt_training.config import TrainConfig
from ttt_training.recipes.recipe import Phase, Recipe

DEFAULT_BASE = "smollm2-135m"
ABOUT = "a pretrained Llama-family model learns to write its dynamic MLPs"
LENGTH, TOKENS = 6144, 3_000_000


def retrofit(config: ModelConfig, *, base: str = DEFAULT_BASE) -> Recipe:
    """The retrofit of one base model, half of it on memory-shaped sequences.

    Args:
        config: of the base as it is loaded: which blocks are dynamic, the window, the inner loop.
        base: its name or path.
    """
    training = TrainConfig(steps=round(TOKENS / LENGTH), batch=1, train="dynamic", lr=8e-4, floor=8e-5, rate_lr=1e-2)
    return Recipe(
        name="retrofit",
        about=ABOUT,
        base=base,
        tokenizer=base,
        phases=(Phase("retrofit", config, training, length=LENGTH, memory_share=0.5),),
    )
