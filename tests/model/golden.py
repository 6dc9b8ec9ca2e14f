"""Reads the golden files (shared/golden/README.md) into our configuration, parameters and expected values."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ttt_memory.model.config import InnerConfig, ModelConfig
from ttt_memory.model.transformer import Transformer

MODEL = "language_model.model"
BLOCKS = f"{MODEL}.h.blocks"
PRIME = f"{MODEL}.h.prime_storage"
FAST = f"{MODEL}.h.suffix_blocks.feed_forward_prime"


def folder() -> Path:
    named = os.environ.get("TTT_GOLDEN_DIR")
    return Path(named) if named else Path(__file__).parents[3] / "shared" / "golden"


def cases() -> list[str]:
    return sorted(path.name.removesuffix(".f32.safetensors") for path in folder().glob("*.f32.safetensors"))


@dataclass
class Case:
    model: dict[str, Any]
    training: dict[str, Any]
    outer_step: int
    f32: dict[str, Tensor]
    f64: dict[str, Tensor]

    @classmethod
    def load(cls, name: str) -> Case:
        path = folder() / f"{name}.f32.safetensors"
        with safe_open(path, "pt") as opened:
            config = json.loads(opened.metadata()["config"])
        f64 = folder() / f"{name}.f64.safetensors"
        return cls(config["model"], config["training"], config.get("outer_step", 0), load_file(path), load_file(f64))

    @property
    def meta(self) -> bool:
        return bool(self.training["train_mode"] == "meta")

    @property
    def rate_scale(self) -> float:
        """The warm-up factor m of the README."""
        steps = self.training.get("ilr_warmup_steps", 0)
        if not steps:
            return 1.0
        rate, start = self.training["optimizer_inner"]["lr"], self.training["ilr_init"]
        return float((start + (rate - start) * min(1.0, (self.outer_step + 1) / steps)) / rate)

    def config(self) -> ModelConfig:
        m, inner = self.model, self.training["optimizer_inner"]
        assert m.get("pre_norm", True), "a model without pre-norm is outside our two block styles"
        assert m.get("post_norm", True), "a model without post-norm is outside our two block styles"
        assert m.get("qk_norm", True), "a model without QK-norm is outside our two block styles"
        dynamic = m["suffix_len"] if m["prime"] else 0
        prime = self.f32.get(f"param/{PRIME}.feed_forward_prime.w1.weight")
        return ModelConfig(
            vocab_size=m["vocab_size"],
            hidden=m["hidden_size"],
            layers=m["num_hidden_layers"],
            heads=m["num_attention_heads"],
            kv_heads=m["num_attention_heads"],
            head_dim=m["hidden_size"] // m["num_attention_heads"],
            mlp=m["intermediate_size"],
            dynamic_layers=dynamic,
            dynamic_mlp=m["intermediate_size"] if prime is None else prime.shape[-1],
            block="paper",
            window=m["sliding_window_size"] if m["seq_modeling_block"] == "SWA" else None,
            sinks=0,
            rope_theta=m["rope_theta"],
            norm_eps=m["rms_norm_eps"],
            tied=m["tie_word_embeddings"],
            inner=InnerConfig(
                rule=inner["optimizer_type"],
                rate=inner["lr"],
                clip=inner["clip_gradient"],
                mini_batch=m["mini_batch_size"],
            ),
        )

    def net(self) -> Transformer:
        """Float64 network with the f32 file's weights, widened exactly."""
        config = self.config()
        net = Transformer(config).double()
        names = {key.removeprefix("param/"): tensor.double() for key, tensor in self.f32.items() if "param/" in key}
        state = to_ours(config, names)
        state["inner_rates"] = torch.full((config.dynamic_layers,), config.inner.rate, dtype=torch.float64)
        net.load_state_dict(state)
        return net

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        f32 = self.f32
        return (
            f32["input/input_ids"].long(),
            f32["input/target_tokens"].long(),
            f32["input/loss_masks"].double(),
        )

    def expected(self, prefix: str) -> dict[str, Tensor]:
        return {key.removeprefix(prefix): value for key, value in self.f64.items() if key.startswith(prefix)}


def to_ours(config: ModelConfig, theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their names (stacked, [in, out]) to our parameter names. Linear, so gradients map the same way."""
    ours = {"embedding": theirs[f"{MODEL}.wte.weight"], "final_norm": theirs[f"{MODEL}.ln_f.weight"]}
    if not config.tied:
        (head,) = (tensor for name, tensor in theirs.items() if "lm_head" in name)
        ours["head"] = head if head.shape[0] == config.vocab_size else head.T
    for layer in range(config.layers):
        seq, block = f"{BLOCKS}.seq_modeling_block", f"blocks.{layer}"

        def at(name: str, index: int = layer) -> Tensor:
            return theirs[f"{name}.weight"][index]

        ours[f"{block}.qkv"] = torch.cat([at(f"{seq}.{name}").T for name in ("wq", "wk", "wv")])
        ours[f"{block}.out"] = at(f"{seq}.wo").T
        ours[f"{block}.q_norm"], ours[f"{block}.k_norm"] = at(f"{seq}.q_norm"), at(f"{seq}.k_norm")
        ours[f"{block}.attn_norm"], ours[f"{block}.attn_post_norm"] = (
            at(f"{BLOCKS}.seq_norm"),
            at(f"{BLOCKS}.seq_post_norm"),
        )
        ours[f"{block}.mlp_norm"], ours[f"{block}.mlp_post_norm"] = (
            at(f"{BLOCKS}.ffn_norm"),
            at(f"{BLOCKS}.ffn_post_norm"),
        )
        ours[f"{block}.gate_up"] = torch.cat([at(f"{BLOCKS}.feed_forward.{name}").T for name in ("w1", "w3")])
        ours[f"{block}.down"] = at(f"{BLOCKS}.feed_forward.w2").T
        dynamic = layer - config.prefix_layers
        if dynamic >= 0:
            fast = f"{PRIME}.feed_forward_prime"
            ours[f"{block}.w0_gate_up"] = torch.cat([at(f"{fast}.{name}", dynamic).T for name in ("w1", "w3")])
            ours[f"{block}.w0_down"] = at(f"{fast}.w2", dynamic).T
            ours[f"{block}.dynamic_norm"] = at(f"{PRIME}.ffn_prime_norm", dynamic)
            ours[f"{block}.dynamic_post_norm"] = at(f"{PRIME}.ffn_prime_post_norm", dynamic)
    return ours
