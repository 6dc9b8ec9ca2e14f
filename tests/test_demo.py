"""`make demo` in small: the whole story runs, and everything it claims holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "kernels", "training", "adapters")


def demo(*options: str) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join(str(ROOT / folder) for folder in FOLDERS)
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONUTF8": "1", "TTT_MEMORY_THREADS": "1"}
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / "demo.py"), *options],
        env=environment,
        capture_output=True,
        encoding="utf-8",
        timeout=300,
        check=False,
    )


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """What a run on the tiny model printed, and the store it kept."""
    store = tmp_path_factory.mktemp("demo") / "kept.db"
    run = demo("--model", "tiny", "--quick", "--db", str(store))
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout, store


def test_every_claim_is_checked_and_holds(told: tuple[str, Path]) -> None:
    text, _ = told
    assert "✗" not in text
    claims = [line for line in text.splitlines() if line.lstrip().startswith("✓")]
    assert len(claims) == 12


def test_it_shows_what_a_reader_is_promised(told: tuple[str, Path]) -> None:
    text, _ = told
    for promised in ("tokens/s", "surprise", "hybrid", "weights", "replayed", "digest of the weights", "store"):
        assert promised in text


def test_the_kept_store_holds_both_tenants_and_not_what_was_forgotten(told: tuple[str, Path]) -> None:
    from ttt_memory import CompressedMemory

    url = f"sqlite:///{told[1]}"
    with CompressedMemory.open(url, tenant="ada") as ada, CompressedMemory.open(url, tenant="grace") as grace:
        sessions = [info.sequence for info in ada.documents() if info.stream == "marigold"]
        assert sessions == [1, 2, 3, 4, 6, 7, 8, 9]
        assert len(grace.documents()) == 5
        assert not any("KESTREL" in (ada.get(info.id).text or "") for info in ada.documents())


def test_a_store_that_exists_is_never_written_over(tmp_path: Path) -> None:
    there = tmp_path / "mine.db"
    there.write_bytes(b"mine")
    run = demo("--model", "tiny", "--db", str(there))
    assert run.returncode == 2
    assert "exists already" in run.stderr
    assert there.read_bytes() == b"mine"


def test_the_chat_alternates_and_moves_forward_in_time() -> None:
    lines = (ROOT / "examples" / "data" / "chat.jsonl").read_text(encoding="utf-8").splitlines()
    turns = [json.loads(line) for line in lines]
    assert 60 <= len(turns) <= 100
    assert [turn["time"] for turn in turns] == sorted(turn["time"] for turn in turns)
    assert {turn["speaker"] for turn in turns} == {"Ada", "Assistant"}
