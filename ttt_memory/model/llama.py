"""Llama checkpoints as TTT-E2E models: dynamic MLPs before the static ones, which change nothing until they learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor

from ttt_memory.errors import ModelFormatError
from ttt_memory.model.config import InnerConfig, ModelConfig

RETROFIT_RATE = 0.7
"""Inner rate of a copied W0: of 0.5 to 2.0 the lowest loss over 8,192 tokens, early ones included."""


def config_from_llama(hf_config: Mapping[str, Any], **overrides: Any) -> ModelConfig:
    """The retrofit's configuration of a Llama `config.json`.

    The last quarter of the blocks is dynamic, at the static MLP's width; window 1,024, 4 sinks, mini-batch 512. Any
    field of ModelConfig, `inner` included, can be overridden by name.

    Raises:
        ModelFormatError: the checkpoint uses something that this model does not have, or lacks a setting.
    """
    _refuse_unsupported(hf_config)
    try:
        hidden, layers, heads = (
            int(hf_config[key]) for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")
        )
        mlp, vocab = int(hf_config["intermediate_size"]), int(hf_config["vocab_size"])
    except KeyError as error:
        raise ModelFormatError("The model's config.json is incomplete.", why=f"no {error}") from error
    start = hf_config.get("bos_token_id")
    base = ModelConfig(
        vocab_size=vocab,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=int(hf_config.get("num_key_value_heads") or heads),
        head_dim=int(hf_config.get("head_dim") or hidden // heads),
        mlp=mlp,
        dynamic_layers=max(1, round(layers / 4)),
        dynamic_mlp=mlp,
        block="llama",
        rope_theta=_theta(hf_config),
        norm_eps=float(hf_config.get("rms_norm_eps", 1e-6)),
        tied=bool(hf_config.get("tie_word_embeddings", False)),
        start_token=int(start[0] if isinstance(start, list) else start or 0),
        inner=InnerConfig(rate=RETROFIT_RATE),
    )
    try:
        return replace(base, **overrides)
    except TypeError as error:
        raise ModelFormatError("Unknown model setting.", why=str(error)) from error


def from_llama(
    config: ModelConfig, tensors: Mapping[str, Tensor], *, w0: Literal["copy"] = "copy"
) -> dict[str, Tensor]:
    """Parameters of `Transformer(config)` from a checkpoint under Hugging Face's Llama names.

    Args:
        config: from `config_from_llama`.
        tensors: `model.embed_tokens.weight`, `model.layers.N.self_attn.q_proj.weight`, ...; q and k in the half-split
            RoPE layout, any dtype.
        w0: "copy": gate and up of the dynamic MLP are the static MLP's, down is zero, so that W0 adds nothing.

    Raises:
        ModelFormatError: a tensor is missing or has another shape than `config` says.
    """
    taken = _Taken(tensors)
    hidden, width = config.hidden, config.head_dim
    out = {
        "embedding": taken("model.embed_tokens.weight", config.vocab_size, hidden),
        "final_norm": taken("model.norm.weight", hidden),
        "inner_rates": torch.full((config.dynamic_layers,), config.inner.rate),
    }
    if not config.tied:
        out["head"] = taken("lm_head.weight", config.vocab_size, hidden)
    for layer in range(config.layers):
        theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
        q, k, v = (
            taken(f"{theirs}.self_attn.{name}_proj.weight", heads * width, hidden)
            for name, heads in (("q", config.heads), ("k", config.kv_heads), ("v", config.kv_heads))
        )
        gate, up = (taken(f"{theirs}.mlp.{name}_proj.weight", config.mlp, hidden) for name in ("gate", "up"))
        norm = taken(f"{theirs}.post_attention_layernorm.weight", hidden)
        out[f"{ours}.attn_norm"] = taken(f"{theirs}.input_layernorm.weight", hidden)
        out[f"{ours}.qkv"] = torch.cat((q, k, v))
        out[f"{ours}.out"] = taken(f"{theirs}.self_attn.o_proj.weight", hidden, config.heads * width)
        out[f"{ours}.mlp_norm"] = norm
        out[f"{ours}.gate_up"] = torch.cat((gate, up))
        out[f"{ours}.down"] = taken(f"{theirs}.mlp.down_proj.weight", hidden, config.mlp)
        if layer >= config.prefix_layers:
            if config.dynamic_mlp != config.mlp:
                raise ModelFormatError(
                    f"w0={w0!r} copies the static MLP, so the dynamic one must be as wide.",
                    why=f"dynamic_mlp={config.dynamic_mlp}, mlp={config.mlp}",
                )
            out[f"{ours}.dynamic_norm"] = norm.clone()
            out[f"{ours}.w0_gate_up"] = torch.cat((gate, up))
            out[f"{ours}.w0_down"] = torch.zeros(hidden, config.dynamic_mlp, dtype=gate.dtype)
    return out


class _Taken:
    """Looks tensors up by name and shape."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors

    def __call__(self, name: str, *shape: int) -> Tensor:
        found = self._tensors.get(name)
        if found is None:
            raise ModelFormatError(f"The checkpoint has no tensor {name!r}.", fix="Give a Llama-family checkpoint.")
        if tuple(found.shape) != shape:
            raise ModelFormatError(
                f"The checkpoint does not fit its configuration: {name!r} is {list(found.shape)}, not {list(shape)}."
            )
        return found


def _theta(hf_config: Mapping[str, Any]) -> float:
    """Base of the rotary frequencies; newer files keep it in `rope_parameters`."""
    nested = hf_config.get("rope_parameters") or {}
    return float(hf_config.get("rope_theta") or nested.get("rope_theta") or 10_000.0)


def _refuse_unsupported(hf_config: Mapping[str, Any]) -> None:
    scaling = hf_config.get("rope_scaling") or hf_config.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    faults = {
        f"RoPE scaling {kind!r}": kind != "default",
        "attention bias": bool(hf_config.get("attention_bias")),
        "MLP bias": bool(hf_config.get("mlp_bias")),
        f"activation {hf_config.get('hidden_act')!r}": hf_config.get("hidden_act", "silu") not in ("silu", "swish"),
    }
    if found := [name for name, present in faults.items() if present]:
        raise ModelFormatError(
            "This checkpoint is not a plain Llama model.",
            why=f"it uses {', '.join(found)}",
            fix="Use a Llama-family checkpoint with default RoPE, no biases and SwiGLU.",
        )
