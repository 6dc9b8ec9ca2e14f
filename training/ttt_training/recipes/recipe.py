"""What a recipe is: a base or a shape, and the phases of its training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ttt_memory.model.config import ModelConfig
from ttt_training.config import TrainConfig
from ttt_training.data.lives import Life, Lives
from ttt_training.data.sequences import Long, Mixture, SequenceSource
from ttt_training.data.shards import Shards
from ttt_training.errors import TrainingConfigError


@dataclass(frozen=True)
class Phase:
    """One run of the trainer.

    Attributes:
        name: folder of the phase inside the run's.
        config: of the network in this phase (window, RoPE base and segments may change between phases).
        training: settings of the outer loop.
        length: predicted tokens of a sequence.
        memory_share: share of the sequences that are shaped as a memory's life; the others are long documents.
    """

    name: str
    config: ModelConfig
    training: TrainConfig
    length: int
    memory_share: float = 0.0

    @property
    def tokens(self) -> int:
        """Predicted tokens in all."""
        return self.training.steps * self.training.batch * self.length

    def source(self, shards: Shards) -> SequenceSource:
        """The phase's sequences."""
        seed = self.training.seed
        part = (min(128, self.length), max(128, min(4096, self.length // 2)))
        life = Life(self.length, part=part, append=(min(24, self.length), min(768, part[1])))
        lives = Lives(shards, self.config, life, seed=seed)
        if self.memory_share >= 1:
            return lives
        long = Long(shards, self.config, tokens=self.length, seed=seed)
        return Mixture(long, lives, self.memory_share) if self.memory_share else long


@dataclass(frozen=True)
class Recipe:
    """A whole training.

    Attributes:
        name: on the command line.
        about: one line for people.
        base: the model it starts from, as `load_model` takes it; None: weights drawn from the seed.
        tokenizer: model whose tokenizer makes the shards; None: it has to be named.
        phases: in order, each from the weights of the one before.
    """

    name: str
    about: str
    base: str | None
    tokenizer: str | None
    phases: tuple[Phase, ...]


@dataclass(frozen=True)
class Changes:
    """What the command line changes in a recipe; None leaves it as it is.

    Attributes:
        tokens: predicted tokens in all, shared among the phases as in the recipe.
        length, batch, memory_share: of every phase.
        control: the same parameters, data and tokens without writes.
        training: fields of TrainConfig by name.
        model, inner: fields of ModelConfig and InnerConfig by name.
    """

    tokens: int | None = None
    length: int | None = None
    batch: int | None = None
    memory_share: float | None = None
    control: bool = False
    training: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    inner: dict[str, Any] | None = None


def changed(recipe: Recipe, changes: Changes) -> Recipe:
    """The recipe with the changes. Raises TrainingConfigError for one that makes no sense."""
    whole = sum(phase.tokens for phase in recipe.phases)
    return replace(recipe, phases=tuple(_phase(phase, changes, whole) for phase in recipe.phases))


def _phase(phase: Phase, changes: Changes, whole: int) -> Phase:
    length = phase.length if changes.length is None else changes.length
    batch = phase.training.batch if changes.batch is None else changes.batch
    share = phase.memory_share if changes.memory_share is None else changes.memory_share
    if length < 1 or batch < 1 or not 0 <= share <= 1 or (changes.tokens is not None and changes.tokens < 1):
        raise TrainingConfigError("Tokens, length and batch are at least 1, and the memory share lies in 0..1.")
    tokens = phase.tokens if changes.tokens is None else changes.tokens * phase.tokens / whole
    steps = max(1, round(tokens / (batch * length)))
    same = (length, batch, changes.tokens) == (phase.length, phase.training.batch, None)
    inner_warm_up = round(phase.training.inner_warm_up / phase.training.steps * steps)
    training = replace(
        phase.training,
        steps=phase.training.steps if same else steps,
        batch=batch,
        inner="none" if changes.control else phase.training.inner,
        inner_warm_up=phase.training.inner_warm_up if same else inner_warm_up,
        **(changes.training or {}),
    )
    inner = replace(phase.config.inner, **(changes.inner or {}))
    config = replace(phase.config, inner=inner, **(changes.model or {}))
    return replace(phase, config=config, training=training, length=length, memory_share=share)
