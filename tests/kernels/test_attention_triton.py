"""The Triton kernels under the interpreter: outputs and every derivative against the reference in float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from ttt_kernels.attention import KeyValues, attention

from tests.kernels.attention_cases import derivatives, draw, run

pytest.importorskip("triton", reason="triton is not installed: pip install 'ttt-memory[triton]'")
if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("these tests interpret the kernels; gpu/ holds those that run them", allow_module_level=True)

from ttt_kernels.attention.cases import compile_cases
from ttt_kernels.attention.tiles.launch import PRECISE, Tile, TritonPasses

ROOT = Path(__file__).parents[2]
BASE = {
    "batch": 1,
    "heads": (1, 1),
    "length": 20,
    "width": 16,
    "window": 9,
    "held": 12,
    "sinks": 0,
    "starts": [30, 0],
    "turned": "halves",
    "seed": 0,
}
SMALL = dict.fromkeys(PRECISE, Tile(16, 16, 4, 1))
WIDER = dict.fromkeys(PRECISE, Tile(32, 16, 4, 1))
CASES = {
    "no-prefix-tail-no-window": {"held": 0, "window": None, "starts": [0, 0], "turned": "no", "length": 37},
    "gqa8-short-chunk-long-prefix": {"heads": (8, 1), "length": 3, "held": 40, "window": 34, "width": 10},
    "ragged-sinks-empty-tiles": {
        "batch": 2,
        "heads": (2, 1),
        "held": 40,
        "sinks": 4,
        "starts": [3, 24],
        "turned": "pairs",
    },
    "width-80": {"width": 80, "held": 20, "window": 17, "turned": "pairs", "length": 9},
    "whole-tiles": {"length": 33, "held": 60, "window": 64, "starts": [60, 0]},
}
PASSES = [
    (name, on) for name, case in CASES.items() for on in (True, False) if on or {**BASE, **case}["turned"] != "no"
]
"""Keys are turned as they are loaded, or before; where nothing is turned the two are one."""


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize(("name", "on_load"), PASSES, ids=[f"{n}-{'on-load' if on else 'before'}" for n, on in PASSES])
def test_every_derivative_in_fp32(name: str, on_load: bool) -> None:
    case = {**BASE, **CASES[name]}
    tensors, options = draw(case, torch.float32)
    exact = {key: x.detach().double().requires_grad_() for key, x in tensors.items()}
    expected = derivatives(exact, options, impl="reference")
    tiles = WIDER if on_load else SMALL
    got = derivatives(tensors, options, passes=TritonPasses(on_load, tiles))
    assert got.keys() == expected.keys()
    for key, theirs in expected.items():
        assert (got[key] - theirs).abs().max() < 2e-6 * (1 + theirs.abs().max()), key


@pytest.mark.usefixtures("poison")
@pytest.mark.parametrize("width", [64, 96, 128])
def test_every_derivative_at_the_other_head_widths(width: int) -> None:
    case = {**BASE, "width": width, "length": 7, "held": 10, "window": 6, "sinks": 1, "turned": "pairs"}
    tensors, options = draw(case, torch.float32)
    exact = {key: x.detach().double().requires_grad_() for key, x in tensors.items()}
    expected = derivatives(exact, options, impl="reference")
    got = derivatives(tensors, options, passes=TritonPasses(True, SMALL))
    for key, theirs in expected.items():
        assert (got[key] - theirs).abs().max() < 4e-6 * (1 + theirs.abs().max()), key


def test_chunks_with_a_prefix_equal_the_whole_and_the_hessian_is_symmetric() -> None:
    torch.manual_seed(2)
    passes = TritonPasses(True, SMALL)
    tensors, options = draw({**BASE, "length": 24, "held": 0, "window": 9, "starts": [0, 0]}, torch.float32)
    leaves, weights = list(tensors.values()), torch.randn_like(tensors["q"])
    u, v = ([torch.randn_like(x) for x in leaves] for _ in range(2))

    def whole() -> torch.Tensor:
        return run(tensors, options, passes=passes)

    def chunks() -> torch.Tensor:
        outs = []
        for first in range(0, 24, 8):
            part = {name: x[:, :, first : first + 8] for name, x in tensors.items()}
            if first:
                held = slice(max(0, first - 9), first)
                part |= {f"p{name}": tensors[name][:, :, held] for name in ("k", "v")}
            outs.append(run(part, options | {"start": first}, passes=passes))
        return torch.cat(outs, dim=2)

    def product(out: torch.Tensor, direction: list[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        first = torch.autograd.grad((out * weights).sum(), leaves, create_graph=True)
        along = torch.stack([(g * d).sum() for g, d in zip(first, direction, strict=True)]).sum()
        return torch.autograd.grad(along, leaves)

    one, other, turned = product(whole(), u), product(chunks(), u), product(whole(), v)
    for mine, theirs in zip(one, other, strict=True):
        assert (mine - theirs).abs().max() < 1e-5 * (1 + mine.abs().max())
    left, right = (sum((a * b).sum() for a, b in zip(*pair, strict=True)) for pair in ((v, one), (u, turned)))
    assert abs(left) > 1e-2
    assert abs(left - right) < 1e-4 * abs(left)


@pytest.mark.usefixtures("poison")
def test_every_derivative_in_fp16_is_as_near_as_fp16_allows() -> None:
    case = {**BASE, "heads": (4, 2), "sinks": 2, "turned": "pairs"}
    tensors, options = draw(case, torch.float16)
    exact = {key: x.detach().double().requires_grad_() for key, x in tensors.items()}
    expected = derivatives(exact, options, impl="reference")
    plain = derivatives(tensors, options, impl="reference")
    got = derivatives(tensors, options, passes=TritonPasses(True, WIDER))
    for key, theirs in expected.items():
        error, allowed = ((x[key].double() - theirs).abs().max() for x in (got, plain))
        assert error <= 2 * allowed + 1e-3 * theirs.abs().max(), key


@pytest.mark.usefixtures("poison")
def test_the_public_operation_takes_triton_with_its_own_tiles() -> None:
    tensors, options = draw({**BASE, "heads": (2, 1), "sinks": 1}, torch.float32)
    expected = derivatives(tensors, options, impl="reference")
    got = derivatives(tensors, options, impl="triton")
    for key, theirs in expected.items():
        assert (got[key] - theirs).abs().max() < 1e-5 * (1 + theirs.abs().max()), key


@pytest.mark.usefixtures("poison")
def test_the_inner_step_without_the_prefix() -> None:
    tensors, options = draw({**BASE, "length": 8}, torch.float32)
    results = []
    for how in ({"impl": "reference"}, {"passes": TritonPasses(True, SMALL), "prefix_grad": False}):
        out = run(tensors, options, **how)
        first = torch.autograd.grad(out.square().sum(), [tensors[name] for name in "qkv"], create_graph=True)
        outer = out.sin().sum() + sum(g.square().sum() for g in first)
        results.append(torch.autograd.grad(outer, list(tensors.values())))
    for name, theirs, ours in zip(tensors, *results, strict=True):
        assert (ours - theirs).abs().max() < 1e-5 * (1 + theirs.abs().max()), name


def test_heads_further_apart_than_32_bits_count(tmp_path: Path) -> None:
    apart = 2**31 + 64
    sparse = torch.from_file(str(tmp_path / "rows"), shared=True, size=apart + 64, dtype=torch.float16)
    far = sparse.as_strided((1, 2, 3, 8), (apart, apart, 8, 1))
    torch.manual_seed(0)
    near = torch.randn(1, 2, 3, 8).half()
    far.copy_(near)
    q = torch.randn(1, 2, 3, 8).half()
    assert torch.equal(
        attention(q, far, far, prefix=KeyValues(far, far), start=3, impl="triton"),
        attention(q, near, near, prefix=KeyValues(near, near), start=3, impl="triton"),
    )


def test_rows_that_are_not_dense_are_taken_as_they_are() -> None:
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 3, 8, 2).transpose(-1, -2).transpose(1, 2) for _ in range(3))
    assert q.stride(-1) != 1
    plain, ours = (attention(q, k, v, window=2, impl=impl) for impl in ("reference", "triton"))
    assert (ours - plain).abs().max() < 1e-5


@pytest.mark.parametrize(
    ("dtype", "width", "message"),
    [(torch.float64, 8, "q has dtype torch.float64"), (torch.float32, 130, "expected a width D up to 128")],
)
def test_what_the_kernels_do_not_take_is_named(dtype: torch.dtype, width: int, message: str) -> None:
    q = torch.zeros(1, 1, 2, width, dtype=dtype)
    with pytest.raises(ValueError, match=message):
        attention(q, q, q, impl="triton")


def test_without_a_gpu_and_the_interpreter_triton_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET")
    q = torch.zeros(1, 1, 2, 8)
    with pytest.raises(ValueError, match="q is on cpu, expected cuda"):
        attention(q, q, q, impl="triton")


def compile_check(*arguments: str, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(cache), "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "kernels")))}
    command = [sys.executable, "-m", "ttt_kernels.compile_check", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def test_the_kernels_compile_for_a_gpu_that_is_not_there(tmp_path: Path) -> None:
    table = tmp_path / "table.json"
    done = compile_check("--target", "90", "--only", "attention/quick", "--json", str(table), cache=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = {row["kernel"]: row for row in json.loads(table.read_text())["kernels"]}
    assert rows["backward_queries_kernel"]["tensor_core_instructions"] > 0
    assert rows["backward_queries_kernel"]["registers"] > 0


@pytest.mark.parametrize("version", ["3.6.0", "3.7.1"])
def test_the_committed_table_covers_every_case(version: str) -> None:
    table = json.loads((ROOT / "benchmarks" / "results" / f"kernels-compile-sm90-triton-{version}.json").read_text())
    assert table["triton"] == version
    assert table["wrong"] == []
    assert {row["case"] for row in table["kernels"]} >= {case.name for case in compile_cases()}


@pytest.mark.slow
def test_every_kernel_compiles(tmp_path: Path) -> None:
    done = compile_check(cache=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
