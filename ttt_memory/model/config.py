"""The configuration of one Transformer: the paper's block style and the retrofit's."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from ttt_memory.errors import ModelFormatError

FOLD_VERSION = 1
"""Version of the fold's semantics (segments, steps, sinks, start tokens). Part of every state's identity."""


@dataclass(frozen=True)
class InnerConfig:
    """The inner loop: how fast weights are written while reading (paper section 3; shared semantics in fold.py).

    Attributes:
        rule: `sgd` (the paper's), or `muon` (orthogonalised write).
        rate: initial inner learning rate of every dynamic layer; learned per-layer rates in the weights override it.
        clip: global-norm clip over all dynamic MLPs; 0 is none.
        mini_batch: predicted tokens per inner step (b).
        decay: share of the distance to W0 that every step gives back; 0 is none.
    """

    rule: Literal["sgd", "muon"] = "sgd"
    rate: float = 1.0
    clip: float = 1.0
    mini_batch: int = 512
    decay: float = 0.0


@dataclass(frozen=True)
class ModelConfig:
    """Shape of one model. Two block styles share the code.

    - `block="paper"`: pre- and post-norm around every residual branch, QK-norm, interleaved RoPE, MHA.
    - `block="llama"`: pre-norm, GQA, half-split RoPE, attention sinks; the dynamic MLP sits before the static one.

    The last `dynamic_layers` blocks carry a dynamic SwiGLU of width `dynamic_mlp` (0 layers: a plain Transformer).
    `window` counts keys including the query's own; None is full causal attention. With `full_attention_every=n` every
    n-th block attends to everything whatever the window (the paper's hybrid baseline has n = 6).
    """

    vocab_size: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp: int
    dynamic_layers: int
    dynamic_mlp: int
    block: Literal["paper", "llama"] = "llama"
    window: int | None = 1024
    sinks: int = 4
    full_attention_every: int = 0
    rope_theta: float = 100_000.0
    norm_eps: float = 1e-5
    tied: bool = True
    start_token: int = 0
    segment_tokens: int = 8192
    context_tokens: int = 1024
    append_context_tokens: int = 256
    inner: InnerConfig = field(default_factory=InnerConfig)

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ModelFormatError(f"{self.heads} heads cannot share {self.kv_heads} key/value heads.")
        if not 0 <= self.dynamic_layers <= self.layers:
            raise ModelFormatError(f"dynamic_layers={self.dynamic_layers} is outside 0..{self.layers}.")
        if self.full_attention_every < 0:
            raise ModelFormatError(f"full_attention_every={self.full_attention_every} is below 0.")
        if self.window is not None and self.window <= self.sinks:
            raise ModelFormatError(f"The window ({self.window}) must be larger than the sinks ({self.sinks}).")
        if not 0 <= self.inner.decay < 1:
            raise ModelFormatError(f"The inner decay ({self.inner.decay}) must be at least 0 and less than 1.")

    @property
    def prefix_layers(self) -> int:
        """Number of blocks without a dynamic MLP; they never depend on the fast weights."""
        return self.layers - self.dynamic_layers

    def of_block(self, index: int) -> ModelConfig:
        """The configuration that block `index` computes with: without a window where it attends to everything."""
        every = self.full_attention_every
        return replace(self, window=None) if every and (index + 1) % every == 0 else self

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dictionary."""
        values = asdict(self)
        if not self.full_attention_every:  # younger than the names of models, which hash this dictionary
            del values["full_attention_every"]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ModelConfig:
        """Inverse of `to_dict`. Raises ModelFormatError on unknown or missing names."""
        known = {f.name for f in fields(cls)}
        if unknown := set(values) - known:
            raise ModelFormatError(f"Unknown model settings: {sorted(unknown)}.", fix=f"Known: {sorted(known)}.")
        rest = dict(values)
        try:
            inner = InnerConfig(**rest.pop("inner", {}))
            return cls(**rest, inner=inner)
        except TypeError as error:
            raise ModelFormatError("The model's configuration is incomplete.", why=str(error)) from error
