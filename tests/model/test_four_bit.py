"""Four-bit products: only for weights that are four-bit numbers, and no less exact than bf16 ones."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parent))
from networks import LLAMA, network

from ttt_memory.model.decoder import Decoder
from ttt_memory.model.four_bit import derive, pack, supported
from ttt_memory.model.transformer import Transformer, working

pytestmark = pytest.mark.skipif(
    not supported(torch.zeros(64, 64, dtype=torch.bfloat16)), reason="this PyTorch has no four-bit product for the CPU"
)


def on_a_grid(rows: int, columns: int, *, seed: int = 0, scale: float = 0.02) -> Tensor:
    """Q4_1-like: in each group of 32 columns 16 levels, both ends taken."""
    generator = torch.Generator().manual_seed(seed)
    q = torch.randint(0, 16, (rows, columns // 32, 32), generator=generator)
    q[..., 3], q[..., 17] = 0, 15
    step = scale * (0.5 + torch.rand(rows, columns // 32, 1, generator=generator))
    low = -step * (6 + 3 * torch.rand(rows, columns // 32, 1, generator=generator))
    return (q * step.half().float() + low.half().float()).view(rows, columns)


def test_products_are_as_exact_as_bf16() -> None:
    exact = on_a_grid(256, 192)
    found = derive(exact.bfloat16())
    assert found is not None
    x = torch.randn(192, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = exact @ x.float()
    ours = (pack(*found).matvec(x).float() - expected).norm()
    plain = (torch.mv(exact.bfloat16(), x).float() - expected).norm()
    assert ours < 2 * plain


def test_constant_and_zero_groups() -> None:
    weight = on_a_grid(64, 64)
    weight[0, :32], weight[1, 32:] = 0.0, 0.25
    found = derive(weight.bfloat16())
    assert found is not None
    x = torch.ones(64).bfloat16()
    assert (pack(*found).matvec(x).float() - weight.sum(1)).abs().max() < 0.02


def test_weights_that_are_no_four_bit_numbers_are_left_alone() -> None:
    assert derive(torch.randn(64, 64).bfloat16()) is None
    nearly = on_a_grid(64, 64)
    nearly[5, 40] += 0.01
    assert derive(nearly.bfloat16()) is None
    assert derive(on_a_grid(64, 64)) is None, "fp32 computing stays fp32"
    assert derive(on_a_grid(64, 96).bfloat16()) is None, "no multiple of 64 columns"


def test_a_network_decodes_with_them_as_exactly_as_without() -> None:
    net = network(hidden=64, heads=4, kv_heads=4, head_dim=16, mlp=128, dynamic_mlp=128, vocab_size=120)
    with torch.no_grad():
        for index, block in enumerate(net.layers()):
            for part in ("qkv", "out", "gate_up", "down"):
                weight = getattr(block, part)
                weight.copy_(on_a_grid(*weight.shape, seed=index, scale=0.03))
    low = Transformer(net.config)
    low.load_state_dict(net.state_dict())
    low = low.bfloat16()
    assert len(low.four_bit()) == 4 * LLAMA.layers
    assert not net.four_bit()
    tokens = torch.randint(120, (1, 60), generator=torch.Generator().manual_seed(0))
    state = net.initial_state().detach()
    with torch.no_grad():
        exact, _ = net(tokens, state)
        _, cache = low(tokens[:, :30], state, impl="flash")
    errors = []
    for four_bit in (low.four_bit(), {}):
        low._four_bit = four_bit
        decoder = Decoder(low, working(state, low.dtype), cache)
        ours = torch.stack([decoder.step(int(token)) for token in tokens[0, 30:]])
        errors.append((ours - exact[0, 30:]).norm())
    assert errors[0] < 2 * errors[1]
