"""Notepads over real SQLite ledgers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.notepad.helpers import Pad
from ttt_memory.ledger import Ledger
from ttt_memory.notepad.embedders import load_embedder


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.open(f"sqlite:///{tmp_path / 'memory.db'}") as opened:
        yield opened


@pytest.fixture
def pad(ledger: Ledger) -> Pad:
    """An empty notepad with the hashing embedder."""
    return Pad(ledger.tenant("a"), load_embedder("hash"))
