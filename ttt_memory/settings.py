"""Settings of this process, from the environment. Everything has a default that works."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ttt_memory.errors import InvalidInputError


@dataclass(frozen=True)
class Settings:
    """What an operator may change.

    Attributes:
        threads: threads of the compute lane (`TTT_MEMORY_THREADS`); fixed, because sums differ between thread counts.
        checkpoint_tokens: learned tokens between checkpoints (`TTT_MEMORY_CHECKPOINT_TOKENS`).
        max_state_bytes: fast weights kept in memory for handles not open now (`TTT_MEMORY_MAX_STATE_BYTES`).
    """

    threads: int
    checkpoint_tokens: int = 16_384
    max_state_bytes: int = 1 << 30

    @classmethod
    def from_env(cls) -> Settings:
        """Read the environment. Raises InvalidInputError for values that are not positive integers."""
        return cls(
            threads=_positive("TTT_MEMORY_THREADS", min(8, _usable_cores())),
            checkpoint_tokens=_positive("TTT_MEMORY_CHECKPOINT_TOKENS", cls.checkpoint_tokens),
            max_state_bytes=_positive("TTT_MEMORY_MAX_STATE_BYTES", cls.max_state_bytes),
        )


def default_url() -> str:
    """SQLite file in the user's data directory, used where `open` is given no url."""
    import platformdirs

    folder = Path(os.environ.get("TTT_MEMORY_DATA") or platformdirs.user_data_dir("ttt_memory"))
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'memory.db'}"


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _positive(name: str, default: int) -> int:
    raw = os.environ.get(name)
    if not raw:
        return default
    if not raw.isdigit() or int(raw) < 1:
        raise InvalidInputError(f"{name}={raw!r} is not a positive whole number.", fix=f"Unset {name} or mend it.")
    return int(raw)
