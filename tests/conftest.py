"""Behaviour of the markers, and the real models and data that tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

# Read when torch and numpy load: threads that spin against each other cost more than they give at the tests' sizes,
# and two test processes share the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
# Read when Triton loads, which other libraries may do before a kernel is asked for.
if not Path("/dev/nvidiactl").exists():
    os.environ.setdefault("TRITON_INTERPRET", "1")

import pytest

if TYPE_CHECKING:
    from ttt_memory.model.loaded import LoadedModel
    from ttt_memory.notepad.embedders import Embedder

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "smollm2" in getattr(item, "fixturenames", ()) or item.get_closest_marker("smollm2"):
            item.add_marker(pytest.mark.xdist_group("smollm2"))  # one of the test processes loads the real model
    # Those with a time limit of their own are the longest: first, so that the test processes end together.
    items.sort(key=lambda item: item.get_closest_marker("timeout") is None)
    if os.environ.get("TTT_TEST_ALL") == "1":
        return
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(pytest.mark.skip(reason="slow: runs in `make test-all` (TTT_TEST_ALL=1)"))


@pytest.fixture(scope="session")
def smollm2_available() -> str:
    """Name of the default base model, fetched and converted on this machine (by `ttt-memory model pull`'s own code)."""
    from ttt_memory.artifacts import DEFAULT_MODEL
    from ttt_memory.model.pull import pull

    pull([DEFAULT_MODEL])
    return DEFAULT_MODEL


@pytest.fixture(scope="session")
def smollm2(smollm2_available: str) -> LoadedModel:
    """The default base model in the machine's own computing precision."""
    from ttt_memory.model.registry import load_model

    return load_model(smollm2_available)


@pytest.fixture(scope="session")
def minilm() -> Embedder:
    """The real embedder."""
    from ttt_memory.model.pull import pull
    from ttt_memory.notepad.embedders import load_embedder

    pull(["minilm"])
    return load_embedder("minilm")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The shared books and evaluation sets, which lie beside a developer's checkout only."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"the books and evaluation sets are not at {folder}: they are not published with the code")
    return folder


@pytest.fixture(scope="session")
def golden_dir() -> Path:
    """The reference implementation's numbers; `TTT_GOLDEN_DIR` names another folder of them."""
    folder = Path(os.environ.get("TTT_GOLDEN_DIR", ROOT.parent / "shared" / "golden"))
    if not folder.is_dir():
        pytest.skip(f"the golden files are not on this machine ({folder}); TTT_GOLDEN_DIR names another folder")
    return folder


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder of the test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("TTT_MEMORY_CACHE", str(folder))
    return folder
