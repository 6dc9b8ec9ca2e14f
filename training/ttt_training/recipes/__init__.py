"""Recipes as code: one function each, by the names that the command line lists."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from ttt_memory.model.config import ModelConfig
from ttt_training.errors import TrainingConfigError
from ttt_training.recipes.paper import BASELINES, EXTENSIONS, SIZES, paper
from ttt_training.recipes.recipe import Changes, Phase, Recipe, changed
from ttt_training.recipes.retrofit import DEFAULT_BASE, retrofit
from ttt_training.recipes.tiny import tiny

__all__ = ["RECIPES", "Changes", "Phase", "Recipe", "changed", "recipe"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    "tiny": tiny,
    **{
        f"{size}{'' if method == 'e2e' else '-' + method}{suffix}": partial(
            paper, size, method=method, extension=extension
        )
        for size in SIZES
        for method in ("e2e", *BASELINES)
        for extension, suffix in zip(EXTENSIONS, ("", "-128k"), strict=True)
    },
}
"""Recipes that need nothing but their name; `retrofit` also needs a base."""


def recipe(name: str, *, base: str = DEFAULT_BASE, config: ModelConfig | None = None) -> Recipe:
    """The recipe of this name. Raises TrainingConfigError listing the known names.

    Args:
        name: `retrofit` or a key of RECIPES.
        base, config: of the retrofit: the base model and its configuration as loaded.
    """
    if name == "retrofit":
        if config is None:
            raise TrainingConfigError("The retrofit needs the configuration of its base model.")
        return retrofit(config, base=base)
    if name not in RECIPES:
        raise TrainingConfigError(f"There is no recipe {name!r}.", fix=f"One of: retrofit, {', '.join(RECIPES)}.")
    return RECIPES[name]()
