"""What a test needs and a machine may lack."""

from __future__ import annotations

from typing import Any

import pytest


def need(module: str, extra: str) -> Any:
    """Return the module, or skip and say which extra brings it."""
    return pytest.importorskip(module, reason=f"{module} is not installed: pip install 'ttt-memory[{extra}]'")
