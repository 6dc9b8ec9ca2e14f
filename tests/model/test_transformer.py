"""One function, however it is computed: in chunks, with a cache, token by token, or by another library."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from networks import LLAMA, PAPER, network

from tests.needs import need
from ttt_memory.errors import ModelFormatError
from ttt_memory.model.config import ModelConfig
from ttt_memory.model.decoder import Decoder
from ttt_memory.model.llama import config_from_llama, from_llama
from ttt_memory.model.transformer import Transformer, working


def logits_in_chunks(net: Transformer, tokens: torch.Tensor, size: int, impl: str) -> torch.Tensor:
    cache, out, state = net.empty_cache(), [], net.initial_state()
    with torch.no_grad():
        for block in tokens.split(size, dim=1):
            logits, cache = net(block, state, cache, impl=impl)
            out.append(logits)
    return torch.cat(out, dim=1)


@pytest.mark.parametrize("config", [LLAMA, PAPER, replace(LLAMA, sinks=0), replace(LLAMA, window=None)])
def test_chunks_of_any_size_agree(config: ModelConfig) -> None:
    """Past the window, with and without sinks, by the reference and by the flash path."""
    net = network(config)
    tokens = torch.randint(config.vocab_size, (1, 90), generator=torch.Generator().manual_seed(1))
    whole = logits_in_chunks(net, tokens, 90, "reference")
    for size in (1, 7, 16, 24, 70):
        for impl in ("reference", "flash"):
            assert (logits_in_chunks(net, tokens, size, impl) - whole).abs().max() < 1e-4, (size, impl)
    assert (logits_in_chunks(net, tokens, 90, "flash") - whole).abs().max() < 1e-4


def test_chunks_agree_at_the_sizes_of_the_real_model() -> None:
    net = network(vocab_size=64, layers=2, dynamic_layers=1, window=1024, kv_heads=1)
    tokens = torch.randint(64, (1, 1800), generator=torch.Generator().manual_seed(1))
    whole = logits_in_chunks(net, tokens, 1800, "reference")
    for size in (512, 700):
        assert (logits_in_chunks(net, tokens, size, "flash") - whole).abs().max() < 1e-4


@pytest.mark.parametrize("read", [1, 3, 20, 24, 26, 60])
@pytest.mark.parametrize("config", [LLAMA, PAPER])
def test_the_decoder_continues_a_pass(config: ModelConfig, read: int) -> None:
    net = network(config)
    tokens = torch.randint(config.vocab_size, (1, 90), generator=torch.Generator().manual_seed(2))
    state = net.initial_state().detach()
    with torch.no_grad():
        whole, _ = net(tokens, state, impl="reference")
        _, cache = net(tokens[:, :read], state, impl="flash")
    decoder = Decoder(net, working(state, net.dtype), cache)
    ours = torch.stack([decoder.step(int(token)) for token in tokens[0, read:]])
    assert (ours - whole[0, read:]).abs().max() < 1e-4
    assert decoder.kv_length == config.window + config.sinks


def test_a_batch_is_its_sequences() -> None:
    net = network()
    tokens = torch.randint(120, (3, 40), generator=torch.Generator().manual_seed(2))
    state = net.initial_state()
    with torch.no_grad():
        for impl in ("reference", "flash"):
            together, _ = net(tokens, state, impl=impl)
            alone = torch.cat([net(row[None], state, impl=impl)[0] for row in tokens])
            assert (together - alone).abs().max() < 1e-5


def test_a_sink_outside_the_window_still_matters_and_others_do_not() -> None:
    net = network(layers=1, dynamic_layers=0)
    tokens = torch.randint(120, (1, 60), generator=torch.Generator().manual_seed(3))
    changed_sink, changed_old = tokens.clone(), tokens.clone()
    changed_sink[0, 2] = (tokens[0, 2] + 1) % 120
    changed_old[0, 10] = (tokens[0, 10] + 1) % 120
    with torch.no_grad():
        last, sink, old = (net(t)[0][0, -1] for t in (tokens, changed_sink, changed_old))
    assert (last - sink).abs().max() > 1e-4
    assert torch.equal(last, old)


HF = {
    "hidden_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "intermediate_size": 80,
    "vocab_size": 200,
    "rope_theta": 10_000.0,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
}


@pytest.mark.parametrize("tied", [False, True])
def test_logits_equal_transformers_on_random_weights(tied: bool) -> None:
    transformers = need("transformers", "dev")
    hf = {**HF, "tie_word_embeddings": tied}
    torch.manual_seed(0)
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**hf, initializer_range=0.2)).eval()
    config = config_from_llama(hf, window=64)
    assert (config.dynamic_layers, config.sinks, config.inner.mini_batch) == (1, 4, 512)
    net = Transformer(config)
    net.load_state_dict(from_llama(config, theirs.state_dict()))
    tokens = torch.randint(200, (1, 60))
    with torch.no_grad():
        expected = theirs(tokens).logits
        plain, _ = net(tokens)
        # A copied W0 has a zero down projection: the dynamic MLPs are there and add nothing.
        copied, _ = net(tokens, net.initial_state())
    assert (plain - expected).abs().max() < 1e-4
    assert torch.equal(copied, plain)


def test_a_checkpoint_that_does_not_fit_is_refused() -> None:
    config = config_from_llama(HF)
    with pytest.raises(ModelFormatError, match=r"no tensor 'model.embed_tokens.weight'"):
        from_llama(config, {})
    with pytest.raises(ModelFormatError, match="does not fit"):
        from_llama(config, {"model.embed_tokens.weight": torch.zeros(3, 3)})
    with pytest.raises(ModelFormatError, match="RoPE scaling 'llama3'"):
        config_from_llama({**HF, "rope_scaling": {"rope_type": "llama3"}})
    with pytest.raises(ModelFormatError, match="incomplete"):
        config_from_llama({})
    with pytest.raises(ModelFormatError, match="Unknown model setting"):
        config_from_llama(HF, windows=3)
