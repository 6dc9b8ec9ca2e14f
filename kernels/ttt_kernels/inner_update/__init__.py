"""The write: one inner step on all dynamic MLPs of a sequence."""

from ttt_kernels.inner_update.api import inner_update
from ttt_kernels.inner_update.types import InnerStep

__all__ = ["InnerStep", "inner_update"]
