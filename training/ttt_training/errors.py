"""Errors of training. Each says what happened, why, and what to do (`ttt_memory.errors`)."""

from __future__ import annotations

from ttt_memory.errors import InvalidInputError, TTTMemoryError


class TrainingConfigError(InvalidInputError):
    """A run cannot work as configured; nothing has been trained or written."""


class TrainingDivergedError(TTTMemoryError):
    """Too many outer steps had no finite loss or gradient. The last good checkpoint is kept."""
