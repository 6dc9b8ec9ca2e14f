"""The benchmark's own rules: finished results are kept, torn ones made again, the better rival counts."""

from __future__ import annotations

import importlib
import json
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> tuple[ModuleType, ModuleType]:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    return importlib.import_module("run"), importlib.import_module("report")


def speed(**rates: list[float]) -> dict[str, dict[str, Any]]:
    machine = dict.fromkeys(("cpu", "cores", "isa", "torch", "dtype", "threads", "load_average_at_start"), "x")
    everything = {
        "learn.8000": [260.0, 250.0, 240.0],
        "read.8000": [440.0, 441.0, 442.0],
        "generate.4096": [80.0, 81.0, 82.0],
        "llama.prefill.8000": [170.0, 171.0, 172.0],
        "llama.generate.4096": [60.0, 60.0, 60.0],
        **rates,
    }
    return {
        "speed": {
            "machine": machine,
            "date": "2026-01-01",
            "settings": {"lengths": [512, 8000], "behind": [64, 4096]},
            "tokens_per_second": everything,
            "reading_by_place": [[0, [400.0]], [2048, [400.0]], [4096, [390.0]]],
        }
    }


def verdicts(report: ModuleType, results: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {row[0].split(",")[0].split(" /")[0]: row[3] for row in report.targets(results)}


def test_targets_are_met_or_not_by_the_median_of_paired_ratios(modules: tuple[ModuleType, ModuleType]) -> None:
    met = verdicts(modules[1], speed())
    assert met["learning"] == met["generating"] == "met"
    slow = verdicts(modules[1], speed(**{"learn.8000": [220.0, 221.0, 999.0]}))
    assert slow["learning"] == "NOT met"


def test_the_faster_llama_is_the_rival(modules: tuple[ModuleType, ModuleType]) -> None:
    met = verdicts(modules[1], speed(**{"llama_flash.prefill.8000": [230.0, 231.0, 232.0]}))
    assert met["learning"] == "NOT met"


def test_without_a_rival_nothing_is_claimed(modules: tuple[ModuleType, ModuleType]) -> None:
    results = speed()
    rates = results["speed"]["tokens_per_second"]
    results["speed"]["tokens_per_second"] = {name: v for name, v in rates.items() if not name.startswith("llama")}
    assert verdicts(modules[1], results)["learning"] == ""


def test_finished_measurements_are_kept_and_torn_ones_made_again(
    modules: tuple[ModuleType, ModuleType], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = modules[0]
    made: list[str] = []

    def process(command: list[str], **_: Any) -> SimpleNamespace:
        made.append(Path(command[1]).stem)
        Path(command[2]).write_text(json.dumps(speed()["speed"]), encoding="utf-8")
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", process)
    out = tmp_path / "speed.json"
    out.write_text('{"measurement": "spe', encoding="utf-8")
    for again, expected in ((False, ["speed"]), (False, ["speed"]), (True, ["speed", "speed"])):
        assert run.measure(tmp_path, "speed", again=again, quick=False) == 0
        assert made == expected
    assert "learning" in (tmp_path / "table.txt").read_text(encoding="utf-8")
