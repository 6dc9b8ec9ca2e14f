"""The real base model: the same logits as another library's, chunk by chunk, and it learns."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.needs import need
from ttt_memory.errors import ModelNotFoundError
from ttt_memory.model.blocks import DynamicWeights
from ttt_memory.model.decoder import Decoder
from ttt_memory.model.loaded import LoadedModel

pytestmark = pytest.mark.smollm2

TEXT = Path(__file__).read_text(encoding="utf-8") + "The memory of a reader is what the text did to the reader. " * 300


@pytest.fixture(scope="module")
def model() -> LoadedModel:
    from ttt_memory.model.registry import load_model

    try:
        return load_model("smollm2-135m", dtype=torch.float32)
    except ModelNotFoundError:
        pytest.skip("the base model is not on this machine: ttt-memory model pull")


def test_logits_equal_transformers(model: LoadedModel) -> None:
    transformers = need("transformers", "dev")
    config = model.config
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size,
            hidden_size=config.hidden,
            intermediate_size=config.mlp,
            num_hidden_layers=config.layers,
            num_attention_heads=config.heads,
            num_key_value_heads=config.kv_heads,
            rms_norm_eps=config.norm_eps,
            rope_theta=config.rope_theta,
            tie_word_embeddings=True,
        )
    ).eval()
    theirs.load_state_dict(to_transformers(model), strict=False)
    tokens = torch.from_numpy(model.tokenizer.encode(TEXT)[:512]).long()[None]
    with torch.no_grad():
        expected = theirs(tokens).logits
        plain, _ = model.net(tokens, impl="flash")
        copied, _ = model.net(tokens, model.initial_state(), impl="flash")
    assert (plain - expected).abs().max() < 1e-3
    # Untouched dynamic MLPs change nothing inside the window.
    assert (copied - expected).abs().max() < 1e-3


def to_transformers(model: LoadedModel) -> dict[str, torch.Tensor]:
    """Our parameters under Hugging Face's names."""
    config, net = model.config, model.net
    q, kv = config.heads * config.head_dim, config.kv_heads * config.head_dim
    out = {
        "model.embed_tokens.weight": net.embedding,
        "lm_head.weight": net.embedding,
        "model.norm.weight": net.final_norm,
    }
    for index, block in enumerate(net.layers()):
        name = f"model.layers.{index}"
        out[f"{name}.input_layernorm.weight"] = block.attn_norm
        out[f"{name}.post_attention_layernorm.weight"] = block.mlp_norm
        for part, weight in zip("qkv", block.qkv.split((q, kv, kv)), strict=True):
            out[f"{name}.self_attn.{part}_proj.weight"] = weight
        out[f"{name}.self_attn.o_proj.weight"] = block.out
        out[f"{name}.mlp.gate_proj.weight"], out[f"{name}.mlp.up_proj.weight"] = block.gate_up.chunk(2)
        out[f"{name}.mlp.down_proj.weight"] = block.down
    return out


def test_chunks_of_any_size_and_single_tokens_agree_past_the_window(model: LoadedModel) -> None:
    """1,400 tokens with a window of 1,024 and sinks, dynamic MLPs that do something."""
    tokens = torch.from_numpy(model.tokenizer.encode(TEXT)[:1400]).long()[None]
    net = model.net
    generator = torch.Generator().manual_seed(0)
    fast = [
        DynamicWeights(b.w0_gate_up, torch.randn(b.w0_down.shape, generator=generator) * 0.01)
        for b in net.layers()[-model.config.dynamic_layers :]
    ]

    def hidden(size: int, count: int) -> torch.Tensor:
        cache, parts = net.empty_cache(), []
        for block in tokens[:, :count].split(size, dim=1):
            part, cache = net.read(block, fast, cache, impl="flash")
            parts.append(part[0])
        return torch.cat(parts)

    with torch.no_grad():
        near, far = slice(0, 70), slice(1300, 1400)
        whole = hidden(700, 1400)
        assert (hidden(512, 1400)[far] - whole[far]).abs().max() < 1e-4
        assert (hidden(7, 70) - whole[near]).abs().max() < 1e-4
        assert (hidden(1, 20) - whole[:20]).abs().max() < 1e-4
        _, cache = net.read(tokens[:, :1380], fast, net.empty_cache(), impl="flash")
        logits = net.logits(whole[1380:])
    decoder = Decoder(net, fast, cache)
    for position, expected in zip(range(1380, 1400), logits, strict=True):
        # Logits reach 45 here, so fp32 alone leaves about 1e-4.
        assert (decoder.step(int(tokens[0, position])) - expected).abs().max() < 2e-4
