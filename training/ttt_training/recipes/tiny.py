"""The whole road in seconds: the built-in tiny model on Python's own documentation."""

from __future__ import annotations

import json
from pathlib import Path

from ttt_memory.model.tiny import CONFIG
from ttt_training.config import TrainConfig
from ttt_training.recipes.recipe import Phase, Recipe


def tiny() -> Recipe:
    """Everything is trained, or nothing would be learned from random weights in so few steps."""
    training = TrainConfig(steps=60, batch=1, train="all", lr=3e-3, floor=3e-4, rate_lr=1e-2, checkpoint_steps=20)
    return Recipe(
        name="tiny",
        about="seconds: the built-in tiny model, by default on Python's own documentation",
        base="tiny",
        tokenizer="tiny",
        phases=(Phase("tiny", CONFIG, training, length=1024, memory_share=0.5),),
    )


def python_documentation(folder: Path) -> Path:
    """A JSON Lines file of the language reference that comes with Python, for data where none is given."""
    from pydoc_data.topics import topics

    path = folder / "python-documentation.jsonl"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"title": t, "text": text}) + "\n" for t, text in sorted(topics.items())))
    return path
