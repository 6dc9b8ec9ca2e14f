"""Triton without a GPU, and poisoned allocations."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

# Read where a kernel is decorated, so it has to stand before the first import of one.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")


def _poisoned(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    def made(*args: Any, **options: Any) -> torch.Tensor:
        out = make(*args, **options)
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("ttt_kernels") and out.is_floating_point():
            out.fill_(float("nan"))
        return out

    return made


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever ttt_kernels allocates without filling holds NaN: a write that a kernel skips shows in the result."""
    for name in ("empty", "empty_like", "empty_strided"):
        monkeypatch.setattr(torch, name, _poisoned(getattr(torch, name)))
    monkeypatch.setattr(torch.Tensor, "new_empty", _poisoned(torch.Tensor.new_empty))
