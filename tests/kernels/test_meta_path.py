"""The canary: no operation between the fast weights and the outer loss may lose a second derivative in silence.

The operations are not listed here: they are recorded while a small model takes two inner steps, and each recorded call
is differentiated twice with every implementation that differentiates twice.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ttt_kernels import _checks

sys.path.insert(0, str(Path(__file__).parents[1] / "model"))
from networks import LLAMA, PAPER, network

from tests.needs import need
from ttt_memory.model import blocks, inner, transformer
from ttt_memory.model.state import FastWeights
from ttt_memory.model.transformer import Transformer, working

CONFIGS = pytest.mark.parametrize("config", [LLAMA, PAPER], ids=["llama", "paper"])
STEP, STEPS = 8, 2
WHERE = {"attention": blocks, "swiglu": blocks, "linear_cross_entropy": transformer, "inner_update": inner}

Call = tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]


def small(config: Any, dtype: torch.dtype) -> Transformer:
    config = replace(config, vocab_size=40, hidden=16, heads=2, kv_heads=1 if config is LLAMA else 2, mlp=24)
    return network(replace(config, dynamic_mlp=24, window=6, sinks=2 if config is LLAMA else 0), dtype=dtype)


def outer_loss(net: Transformer, impl: str = "reference") -> Tensor:
    """Mean loss over mini-batches, each before its own inner step: what meta-learning minimises."""
    tokens = torch.randint(net.config.vocab_size, (1, STEP * STEPS + 1), generator=torch.Generator().manual_seed(1))
    cache, state, losses = net.empty_cache(), net.initial_state(), []
    for first in range(0, STEP * STEPS, STEP):
        part, targets = tokens[:, first : first + STEP], tokens[0, first + 1 : first + STEP + 1]
        hidden, cache = net.read(part, working(state, net.dtype), cache, impl=impl)
        losses.append(net.nll(hidden[0], targets).mean())
        weights = [t for layer in zip(state.gate, state.up, state.down, strict=True) for t in layer]
        grads = torch.autograd.grad(losses[-1], weights, create_graph=True)
        after = inner.write(weights, grads, net.inner_rates, net.config.inner).weights
        state = FastWeights(gate=after[0::3], up=after[1::3], down=after[2::3])
    return torch.stack(losses).mean()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Call]:
    recorded: list[Call] = []

    def recording(operation: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **options: Any) -> Any:
            recorded.append((operation, args, options))
            return operation(*args, **options)

        return run

    for name, module in WHERE.items():
        monkeypatch.setattr(module, name, recording(getattr(module, name)))
    return recorded


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    return [t for item in value for t in tensors(item)] if isinstance(value, (list, tuple)) else []


def rebuilt(value: Any, leaves: list[Tensor]) -> Any:
    """`value` with its floating-point tensors replaced, in order, from `leaves`."""
    if isinstance(value, Tensor):
        return leaves.pop(0) if value.is_floating_point() else value
    if isinstance(value, (list, tuple)):
        items = [rebuilt(item, leaves) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)
    return value


def lost(call: Call, dtype: torch.dtype, impl: str) -> list[int]:
    """Numbers of the tensors, of those that the outer loss depends on, by which the call has no second derivative."""
    operation, args, options = call
    constants = {key: options[key] for key in options if key == "rope"}
    rest = {key: value for key, value in options.items() if key not in ("impl", "rope")}
    constants = {key: rebuilt(value, [t.to(dtype) for t in tensors(value)]) for key, value in constants.items()}
    inputs = [t.detach().to(dtype).clone() for t in tensors([args, *rest.values()])]
    for tensor, original in zip(inputs, tensors([args, *rest.values()]), strict=True):
        tensor.requires_grad_(original.requires_grad)
    new_args, *values = rebuilt([args, *rest.values()], list(inputs))
    out = operation(*new_args, **dict(zip(rest, values, strict=True)), **constants, impl=impl)
    generator = torch.Generator().manual_seed(0)
    parts = [t for t in tensors(out if isinstance(out, tuple) else [out]) if t.requires_grad]
    scalar = torch.stack([(t * torch.randn(t.shape, generator=generator, dtype=t.dtype)).sum() for t in parts]).sum()
    moving = [t for t in inputs if t.requires_grad and t.numel()]
    first = torch.autograd.grad(scalar, moving, create_graph=True, allow_unused=True)
    along = [(g * torch.randn(g.shape, generator=generator, dtype=g.dtype)).sum() for g in first if g is not None]
    along = [value for value in along if value.requires_grad]
    if not along:
        return list(range(len(moving)))
    second = torch.autograd.grad(torch.stack(along).sum(), moving, allow_unused=True)
    return [index for index, g in enumerate(second) if g is None or not g.any() or not g.isfinite().all()]


@CONFIGS
@pytest.mark.parametrize("impl", ["reference", "triton"])
def test_every_operation_of_the_meta_path_has_its_second_derivatives(config: Any, impl: str, calls: list[Call]) -> None:
    if impl == "triton":
        need("triton", "triton")
    outer_loss(small(config, torch.float64)).backward()
    recorded = list(calls)
    assert {operation.__name__ for operation, *_ in recorded} == set(WHERE)
    seen = set()
    for call in recorded:
        operation, args, options = call
        shapes = (operation.__name__, *(tuple(t.shape) for t in tensors([args, *options.values()])))
        if shapes in seen:
            continue
        seen.add(shapes)
        missing = lost(call, torch.float64 if impl == "reference" else torch.float32, impl)
        # The write is linear in the weights it starts from.
        linear = range(len(args[0])) if operation.__name__ == "inner_update" else ()
        assert not set(missing) - set(linear), shapes


@CONFIGS
def test_the_outer_gradient_is_the_slope_of_the_outer_loss(config: Any) -> None:
    net = small(config, torch.float64)
    parameters = list(net.parameters())
    grads = torch.autograd.grad(outer_loss(net), parameters)
    generator = torch.Generator().manual_seed(3)
    directions = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
    assert all(g.any() for g in grads)
    with torch.no_grad():
        slopes = []
        for sign in (1, -1):
            for p, d in zip(parameters, directions, strict=True):
                p.add_(d, alpha=sign * 1e-6)
            with torch.enable_grad():
                slopes.append(sign * float(outer_loss(net).detach()))
            for p, d in zip(parameters, directions, strict=True):
                p.sub_(d, alpha=sign * 1e-6)
    expected = sum(slopes) / 2e-6
    got = float(torch.stack([(g * d).sum() for g, d in zip(grads, directions, strict=True)]).sum())
    assert abs(got - expected) < 1e-6 * max(1.0, abs(expected))


@CONFIGS
def test_triton_gives_the_outer_gradient_of_the_reference(config: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    need("triton", "triton")
    net = small(config, torch.float32)
    theirs = torch.autograd.grad(outer_loss(net), list(net.parameters()))
    monkeypatch.setattr(_checks, "auto", lambda _: "triton")
    ours = torch.autograd.grad(outer_loss(net, impl="triton"), list(net.parameters()))
    for (name, _), mine, other in zip(net.named_parameters(), ours, theirs, strict=True):
        assert (mine - other).abs().max() < 1e-4 * max(1e-3, float(other.abs().max())), name


@pytest.mark.parametrize("name", ["swiglu", "linear_cross_entropy"])
def test_the_canary_sees_a_gradient_without_a_gradient_of_its_own(name: str, calls: list[Call]) -> None:
    class Once(torch.autograd.Function):
        """Keeps its gradient as a constant, as fused operations made for first-order training do."""

        @staticmethod
        def forward(ctx: Any, operation: Callable[..., Tensor], options: dict[str, Any], *args: Tensor) -> Tensor:
            with torch.enable_grad():
                leaves = [a.detach().requires_grad_(a.is_floating_point()) for a in args]
                out = operation(*leaves, **options)
                ctx.kept = torch.autograd.grad(out.sum(), [a for a in leaves if a.requires_grad])
            return out.detach()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
            return (None, None, *(grad.mean() * kept for kept in ctx.kept), *([None] * (3 - len(ctx.kept))))

    outer_loss(small(LLAMA, torch.float64)).backward()
    operation, args, options = next(call for call in calls if call[0].__name__ == name)

    def fused(*inputs: Tensor, impl: str) -> Tensor:
        return Once.apply(operation, {**options, "impl": impl}, *inputs)

    assert lost((fused, args, {}), torch.float64, "reference")


@pytest.mark.parametrize("impl", ["flash"])
def test_what_has_one_derivative_only_says_so(impl: str) -> None:
    with pytest.raises(RuntimeError, match="differentiated once only"):
        outer_loss(small(LLAMA, torch.float32), impl=impl)
