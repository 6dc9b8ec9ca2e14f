"""Inputs of the attention operation and its derivatives up to the second, shared by the tests."""

from __future__ import annotations

import torch
from torch import Tensor
from ttt_kernels.attention import KeyValues, Rope, attention

from tests.needs import need


def draw(case: dict, dtype: torch.dtype = torch.float64) -> tuple[dict[str, Tensor], dict]:
    """The tensors by name, all requiring grad, and the other arguments."""
    generator = torch.Generator().manual_seed(case["seed"])
    heads, kv = case["heads"]
    rows = {"q": (heads, case["length"])} | dict.fromkeys(("k", "v"), (kv, case["length"]))
    if case["held"]:
        rows |= dict.fromkeys(("pk", "pv"), (kv, case["held"]))
    if case["sinks"]:
        rows |= dict.fromkeys(("sk", "sv"), (kv, case["sinks"]))
    tensors = {
        name: torch.randn(case["batch"], *row, case["width"], generator=generator, dtype=torch.float64)
        .to(dtype)
        .requires_grad_()
        for name, row in rows.items()
    }
    frequencies = 100.0 ** -(torch.arange(0, case["width"], 2, dtype=torch.float64) / case["width"])
    angles = torch.arange(128)[:, None] * frequencies
    options = {
        "window": case["window"],
        "start": torch.tensor(case["starts"][: case["batch"]]),
        "rope": None if case["turned"] == "no" else Rope(angles.cos(), angles.sin(), case["turned"] == "pairs"),
    }
    return tensors, options


def run(tensors: dict[str, Tensor], options: dict, **how: object) -> Tensor:
    q, k, v = (tensors[name] for name in "qkv")
    prefix = KeyValues(tensors["pk"], tensors["pv"]) if "pk" in tensors else None
    sinks = KeyValues(tensors["sk"], tensors["sv"]) if "sk" in tensors else None
    if "passes" in how:
        need("triton", "triton")
        from ttt_kernels.attention.impl.triton import windowed

        how |= {"scale": q.shape[-1] ** -0.5, "prefix_grad": how.get("prefix_grad", True)}
        return windowed(q, k, v, prefix=prefix, sinks=sinks, **options, **how)  # type: ignore[arg-type]
    return attention(q, k, v, prefix=prefix, sinks=sinks, **options, **how)  # type: ignore[arg-type]


def derivatives(tensors: dict[str, Tensor], options: dict, **how: object) -> dict[str, Tensor]:
    """Output, gradient and gradient of <gradient, cotangents>, by name."""
    generator = torch.Generator().manual_seed(7)
    names, leaves = list(tensors), list(tensors.values())

    def noise(like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=generator, dtype=torch.float64).to(like.dtype)

    out = run(tensors, options, **how)
    cotangent = noise(out).requires_grad_()
    first = torch.autograd.grad(out, leaves, cotangent, create_graph=True)
    product = sum((noise(g) * g).sum() for g in first)
    second = torch.autograd.grad(product, [*leaves, cotangent], materialize_grads=True)
    return (
        {"out": out.detach()}
        | {f"d{name}": g.detach() for name, g in zip(names, first, strict=True)}
        | {f"d2{name}": g for name, g in zip([*names, "out"], second, strict=True)}
    )
