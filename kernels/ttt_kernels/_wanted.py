"""Which gradients a running backward pass is asked for."""

from __future__ import annotations

from typing import Any

import torch


def wanted(ctx: Any, count: int) -> tuple[bool, ...]:
    """For each of the first `count` inputs of a Function, all tensors: will the running backward pass use its gradient?

    `ctx.needs_input_grad` says True of every input that requires a gradient, also where `torch.autograd.grad` asks
    for others only: the inner step wants no gradient of the head or of the static MLPs, and none may be computed.
    """
    return tuple(
        bool(needed) and edge is not None and _runs(edge)
        for needed, (edge, _) in zip(ctx.needs_input_grad[:count], ctx.next_functions[:count], strict=True)
    )


def _runs(node: Any) -> bool:
    try:
        return bool(torch._C._will_engine_execute_node(node))
    except RuntimeError:
        # PyTorch's answer for a leaf that `torch.autograd.grad` was asked for by name.
        return True
