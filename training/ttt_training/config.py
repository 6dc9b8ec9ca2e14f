"""Settings of one training run, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from ttt_memory.model.config import ModelConfig
from ttt_memory.model.fold import Segment
from ttt_training.errors import TrainingConfigError
from ttt_training.outcome import Recall
from ttt_training.trained import CHOICES, Choice


@dataclass(frozen=True)
class RecallConfig:
    """The recall term: a span that the window has passed is predicted again after the last write.

    Attributes:
        weight: of the span's mean loss beside the sequence's.
        tokens: predicted tokens of the span.
        context: tokens before it that are re-read as a cue.
    """

    weight: float = 0.1
    tokens: int = 256
    context: int = 32

    def choose(self, segments: Sequence[Segment], window: int, random: np.random.Generator) -> Recall | None:
        """A span of one segment with at least `window` tokens read after it; None where there is none."""
        after = np.cumsum([0, *(len(segment.tokens) for segment in reversed(segments))])[:-1][::-1]
        rooms = [
            max(0, min(len(s.tokens) - self.tokens, len(s.tokens) + int(later) - window - self.tokens) + 1)
            for s, later in zip(segments, after, strict=True)
        ]
        if not sum(rooms):
            return None
        place = int(random.integers(sum(rooms)))
        for segment, room in zip(segments, rooms, strict=True):
            if place < room:
                text = np.concatenate((segment.context, segment.tokens))
                begin = len(segment.context) + place
                span = Segment(text[max(0, begin - self.context) : begin], text[begin : begin + self.tokens])
                return Recall(self.weight, span)
            place -= room
        raise AssertionError("unreachable")


@dataclass(frozen=True)
class TrainConfig:
    """One run. Learning rates are those of AdamW; times in outer steps unless named otherwise.

    Attributes:
        steps: outer steps.
        batch: sequences per outer step, one after another (accumulation); their losses weigh the same.
        train: what is trained (`trained.trained_names`).
        inner: "fold" writes as the product does; "none" trains the same parameters without writes: the control.
        order: 1 leaves the second-order term out.
        kv_grad: gradients through the suffix's cached keys and values.
        every, memory_gb: blocks between kept states, and what these may take before they are spaced further apart;
            graphs of blocks without a write go into the rest (`adjoint.outer_gradient`). Neither changes the result.
        lr, floor: peak and last learning rate.
        rate_lr, rate_floor: the same for the inner rates.
        warm_up: share of the steps in which the learning rates rise.
        betas, weight_decay, clip: of AdamW, and the global norm to which gradients are cut (0: no limit).
        inner_warm_up, inner_start: outer steps in which the inner rates rise from this factor of theirs to 1.
        rank, alpha: of the adapters of `train="lora"`.
        recall: an optional second loss.
        seed: of everything drawn.
        checkpoint_steps, checkpoint_minutes: whichever comes first; 0 switches one off.
        max_skipped: outer steps without a finite loss or gradient before the run ends.
    """

    steps: int
    batch: int = 1
    train: Choice = "dynamic"
    inner: Literal["fold", "none"] = "fold"
    order: Literal[1, 2] = 2
    kv_grad: bool = True
    every: int = 1
    memory_gb: float = 4.0
    lr: float = 4e-4
    floor: float = 1e-5
    rate_lr: float = 1e-2
    rate_floor: float = 1e-4
    warm_up: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0
    inner_warm_up: int = 0
    inner_start: float = 1.0
    rank: int = 8
    alpha: float = 16.0
    recall: RecallConfig | None = None
    seed: int = 0
    checkpoint_steps: int = 50
    checkpoint_minutes: float = 5.0
    max_skipped: int = 10

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        values = asdict(self)
        values["betas"] = list(self.betas)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> TrainConfig:
        """Inverse of `to_dict`. Raises TrainingConfigError on unknown names."""
        rest = dict(values)
        if unknown := set(rest) - {f.name for f in fields(cls)}:
            raise TrainingConfigError(f"Unknown training settings: {sorted(unknown)}.")
        if rest.get("recall") is not None:
            rest["recall"] = RecallConfig(**rest["recall"])
        if "betas" in rest:
            rest["betas"] = tuple(rest["betas"])
        return cls(**rest)

    def check(self, model: ModelConfig) -> None:
        """Raises TrainingConfigError where a run with this model cannot work."""
        at_least = {"steps": 1, "batch": 1, "every": 1, "rank": 1, "lr": 0, "floor": 0, "rate_lr": 0, "rate_floor": 0}
        at_least |= {"weight_decay": 0, "clip": 0, "memory_gb": 0, "max_skipped": 0}
        at_least |= {"checkpoint_steps": 0, "checkpoint_minutes": 0}
        for name, lowest in at_least.items():
            if not getattr(self, name) >= lowest:
                raise TrainingConfigError(f"{name} is {getattr(self, name)}, expected at least {lowest}.")
        if not 0 <= self.warm_up <= 1:
            raise TrainingConfigError(f"warm_up is {self.warm_up}, expected a share between 0 and 1.")
        for name, valid in (("inner", ("fold", "none")), ("order", (1, 2)), ("train", CHOICES)):
            if getattr(self, name) not in valid:
                raise TrainingConfigError(f"{name} is {getattr(self, name)!r}, expected one of {valid}.")
        if self.train == "dynamic" and not model.dynamic_layers:
            raise TrainingConfigError("There are no dynamic MLPs to train.", fix="train='all'")
        if model.inner.mini_batch < 1:
            raise TrainingConfigError(f"The mini-batch is {model.inner.mini_batch}, expected at least 1.")
        if model.dynamic_layers and model.dynamic_mlp < 1:
            raise TrainingConfigError(f"The dynamic MLPs cannot be {model.dynamic_mlp} wide.")
        if model.window is not None and model.window <= model.sinks:
            raise TrainingConfigError(f"The window ({model.window}) must be larger than the sinks ({model.sinks}).")
        if self.recall is not None:
            if self.recall.tokens < 1 or self.recall.context < 0 or not self.recall.weight > 0:
                raise TrainingConfigError(
                    f"The recall term cannot be {self.recall}.", fix="weight above 0, tokens from 1, context from 0"
                )
            if model.window is None:
                raise TrainingConfigError("Full attention forgets nothing: there is no span to recall.")
