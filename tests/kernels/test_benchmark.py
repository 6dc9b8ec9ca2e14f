from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from ttt_kernels import registry
from ttt_kernels.registry import BenchmarkCase

from benchmarks import kernels, kernels_norms
from tests.needs import need


def cubed(x: Tensor) -> Tensor:
    return x**3


def case(order: int = 0) -> BenchmarkCase:
    def inputs(device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        return (torch.randn(5, device=device, dtype=dtype, requires_grad=True),)

    ours = {"right": lambda x: x * x * x, "wrong": lambda x: x.square(), "triton": lambda x: x}
    return BenchmarkCase(f"cube/order{order}", order, inputs, ours, cubed)


@pytest.mark.parametrize("order", [0, 1, 2])
def test_no_time_is_given_to_what_is_wrong(order: int) -> None:
    rows = {row["impl"]: row for row in kernels.measure(case(order), "cpu", torch.float32, 0.0)}
    assert set(rows) == {"right", "wrong", "naive"}
    assert rows["right"]["passed"]
    assert rows["right"]["p20_ms"] <= rows["right"]["p50_ms"] <= rows["right"]["p80_ms"]
    assert not rows["wrong"]["passed"]
    assert "p50_ms" not in rows["wrong"]


def test_a_result_file_is_completed_and_a_failure_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "kernels.json"
    arguments = ["--device", "cpu", "--seconds", "0", "--json", str(out)]
    monkeypatch.setattr(kernels, "benchmark_cases", lambda: iter([case(0)]))
    assert kernels.main(arguments) == 1
    assert "FAILED" in capsys.readouterr().out
    first = json.loads(out.read_text())["rows"]
    monkeypatch.setattr(kernels, "benchmark_cases", lambda: iter([case(0), case(1)]))
    kernels.main(arguments)
    second = json.loads(out.read_text())["rows"]
    assert second[: len(first)] == first
    assert {row["case"] for row in second} == {"cube/order0", "cube/order1"}


def test_every_operation_has_cases_with_names_of_their_own() -> None:
    names = [case.name for case in registry.benchmark_cases()]
    assert len(names) == len(set(names))
    assert {name.split("/")[0] for name in names} == set(registry.OPERATIONS)
    need("triton", "triton")
    compiled = [case.name for case in registry.compile_cases()]
    assert len(compiled) == len(set(compiled))
    assert {name.split("/")[0] for name in compiled} == set(registry.OPERATIONS)


def test_leaving_something_out_changes_the_network_and_is_undone() -> None:
    net = kernels_norms.build(kernels_norms.SHAPES["tiny"], "cpu", torch.float32)
    tokens = torch.arange(24)[None]

    def hidden() -> Tensor:
        with torch.no_grad():
            first, cache = net.read(tokens[:, :16], None, net.empty_cache(), impl="flash")
            return torch.cat((first, net.read(tokens[:, 16:], None, cache, impl="flash")[0]), dim=1)

    whole = hidden()
    for parts in kernels_norms.LEFT_OUT.values():
        with kernels_norms.without(parts):
            # The cache that the second chunk leaves is read by none.
            assert torch.equal(hidden(), whole) == (parts in ((), ("cache",))), parts
        assert torch.equal(hidden(), whole)
    for action in kernels_norms.steps(net).values():
        row = kernels_norms.shares(action, 1, "cpu")
        assert row["ms"] > 0
        assert {f"share_{name}" for name in ("norms", "rope", "cache", "all")} < set(row)
