"""Marks backward passes that have no derivative of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

import torch
from torch.autograd.function import once_differentiable

Backward = TypeVar("Backward", bound=Callable[..., Any])


def first_order_only(backward: Backward) -> Backward:
    """A backward pass that raises RuntimeError under `create_graph=True`.

    `once_differentiable` alone stays silent where the cotangent needs no gradient, as that of a loss does: the second
    derivative would then lack a term without a word.
    """
    inner = once_differentiable(backward)

    @wraps(backward)
    def checked(*args: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("this implementation can be differentiated once only; use impl='reference'")
        return inner(*args)

    return checked  # type: ignore[return-value]
