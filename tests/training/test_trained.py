"""What is trained, its masters, the adapters, the optimizer and the schedules."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from outer import LLAMA, MIXED, network
from ttt_training.adjoint import outer_gradient
from ttt_training.errors import TrainingConfigError
from ttt_training.optimizer import Optimizer, clip, global_norm
from ttt_training.schedule import inner_rate_scale, warm_up_cosine
from ttt_training.trained import Trained, trained_names


def test_named_choices() -> None:
    net = network()
    names = {choice: set(trained_names(net, choice)) for choice in ("dynamic", "dynamic+norms", "lora", "all")}
    assert names["dynamic"] == {
        "inner_rates",
        *(f"blocks.{block}.{part}" for block in (1, 2) for part in ("w0_gate_up", "w0_down")),
    }
    norms = names["dynamic+norms"] - names["dynamic"]
    assert norms == {
        "final_norm",
        *(f"blocks.{block}.{norm}" for block in (1, 2) for norm in ("attn_norm", "mlp_norm", "dynamic_norm")),
    }
    assert names["lora"] - names["dynamic"] == {
        f"blocks.{block}.{part}" for block in range(3) for part in ("qkv", "out", "gate_up", "down")
    }
    assert names["all"] == {name for name, _ in net.named_parameters()}
    with pytest.raises(TrainingConfigError, match="no choice"):
        trained_names(net, "some")
    with pytest.raises(TrainingConfigError, match="trains nothing"):
        trained_names(network(dynamic_layers=0), "dynamic")


@pytest.mark.parametrize("choice", ["dynamic", "all", "lora"])
def test_masters_keep_what_bfloat16_would_lose(choice: str) -> None:
    net = network(dtype=torch.bfloat16)
    before = {name: p.detach().clone() for name, p in net.named_parameters()}
    trained = Trained(net, choice)
    trained.publish()
    assert all(torch.equal(p, before[name].to(p.dtype)) for name, p in net.named_parameters())
    assert all(master.dtype == torch.float32 for master in trained.masters.values())
    for master in trained.masters.values():
        for _ in range(8):
            master.add_(master, alpha=2.0**-11)  # each alone is below half a unit of bfloat16
    trained.publish()
    moved = {name for name, p in net.named_parameters() if not torch.equal(p.to(before[name].dtype), before[name])}
    expected = set(trained.names)
    assert moved == (expected - {n for n in expected if n.endswith(("qkv", "out", ".gate_up", ".down"))}
                     if choice == "lora" else expected)  # fmt: skip
    merged = trained.merged()
    assert set(merged) == expected
    again = Trained(network(dtype=torch.bfloat16), choice)
    again.load(trained.masters)
    assert all(torch.equal(tensor, merged[name]) for name, tensor in again.merged().items())


def test_the_gradient_of_adapters_is_that_of_autograd() -> None:
    net = network()
    trained = Trained(net, "lora", rank=2, alpha=3.0)
    random = torch.Generator().manual_seed(1)
    for name, master in trained.masters.items():
        if "lora_up" in name:
            master.normal_(generator=random).mul_(0.1)
    trained.publish()
    grads = outer_gradient(net, MIXED[:1], parameters=trained.names).grads
    ours = trained.pull(grads)
    name = "blocks.1.qkv"
    down, up = (trained.masters[f"{name}/{part}"].clone().requires_grad_() for part in ("lora_down", "lora_up"))
    merged = dict(network().named_parameters())[name].detach() + 3.0 / 2 * up @ down
    assert torch.allclose(merged.detach(), dict(net.named_parameters())[name], atol=1e-14)
    for part, theirs in zip(
        ("lora_down", "lora_up"), torch.autograd.grad(merged, (down, up), grads[name]), strict=True
    ):
        assert torch.allclose(ours[f"{name}/{part}"], theirs, rtol=1e-10, atol=1e-14)
    assert set(ours) == set(trained.masters)


def test_masters_of_another_shape_are_refused() -> None:
    trained = Trained(network(), "dynamic")
    other = Trained(network(dynamic_mlp=LLAMA.dynamic_mlp + 4), "dynamic")
    with pytest.raises(TrainingConfigError, match="not those of this run"):
        trained.load(other.masters)


def test_the_optimizer_is_adamw_with_rates_of_their_own_and_decays_matrices_only() -> None:
    random = torch.Generator().manual_seed(0)
    start = {"w": torch.ones(3, 2), "norm": torch.ones(2), "inner_rates": torch.ones(2), "still": torch.ones(2, 2)}
    ours = {name: tensor.clone() for name, tensor in start.items()}
    theirs = {name: tensor.clone().requires_grad_() for name, tensor in start.items()}
    optimizer = Optimizer(ours, weight_decay=0.5)
    plain = [
        torch.optim.AdamW([theirs[name]], lr=lr, betas=(0.9, 0.95), weight_decay=decay)
        for name, lr, decay in (("w", 0.1, 0.5), ("norm", 0.1, 0.0), ("inner_rates", 0.02, 0.0))
    ]
    for turn in range(4):
        grads = {name: torch.randn(t.shape, generator=random) for name, t in start.items() if name != "still"}
        if turn == 2:  # taken apart and put together again on the way
            state = {name: tensor.clone() for name, tensor in optimizer.state().items()}
            optimizer = Optimizer(ours, weight_decay=0.5)
            optimizer.load(state)
        optimizer.step(grads, lr=0.1, rate_lr=0.02)
        for one in plain:
            for parameter in one.param_groups[0]["params"]:
                name = next(n for n, t in theirs.items() if t is parameter)
                parameter.grad = grads[name]
            one.step()
    assert all(torch.equal(ours[name], theirs[name]) for name in start)
    assert torch.equal(ours["still"], start["still"])


def test_clip_and_schedules() -> None:
    grads = {"a": torch.tensor([3.0, 0.0]), "b": torch.tensor([[4.0]])}
    assert clip(grads, 1.0) == 5.0
    assert global_norm(grads) == pytest.approx(1.0)
    assert clip(grads, 0.0) == pytest.approx(1.0)
    rates = [warm_up_cosine(step, steps=100, warm_up=10, peak=1.0, floor=0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9] == rates[10] == 1.0
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[55] == pytest.approx(0.55)
    assert 0.1 < rates[-1] < 0.101
    assert [inner_rate_scale(step, steps=4, start=0.2) for step in (0, 3, 9)] == pytest.approx([0.4, 1.0, 1.0])
    assert inner_rate_scale(0, steps=0, start=0.2) == 1.0
