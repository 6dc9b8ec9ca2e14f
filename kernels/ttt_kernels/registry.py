"""What there is to compile and to measure: the operations' cases, for `compile_check` and `benchmarks/kernels.py`.

An operation takes part by a module `ttt_kernels/<operation>/cases.py` with two functions, `compile_cases()` and
`benchmark_cases()`. They are imported when asked for, so that this module costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from torch import Tensor

OPERATIONS = ("attention", "cross_entropy", "swiglu", "inner_update")


@dataclass(frozen=True)
class CompileCase:
    """Launches that are compiled and not run.

    Attributes:
        name: of the case, "operation/variant".
        launch: calls the host code of the kernels with CPU tensors of the wanted dtypes; results mean nothing.
        tensor_core: names of the kernels that must use the tensor cores (wgmma on sm_90, mma on sm_80).
    """

    name: str
    launch: Callable[[], object]
    tensor_core: frozenset[str] = frozenset()


@dataclass(frozen=True)
class BenchmarkCase:
    """One operation on one input, beside the naive composition of PyTorch calls.

    Attributes:
        name: "operation/variant".
        order: derivative that is timed: 0 forward, 1 with the gradient, 2 with the gradient of the gradient's norm.
        inputs: makes the tensors, given device and dtype; those that require grad are differentiated.
        ours: {impl: function of the inputs}.
        naive: the same function in plain PyTorch.
    """

    name: str
    order: int
    inputs: Callable[..., tuple[Tensor, ...]]
    ours: Mapping[str, Callable[..., Tensor]]
    naive: Callable[..., Tensor]


def compile_cases() -> Iterator[CompileCase]:
    """Every operation's compile cases; imports triton."""
    for cases in _modules():
        yield from cases.compile_cases()


def benchmark_cases() -> Iterator[BenchmarkCase]:
    """Every operation's benchmark cases."""
    for cases in _modules():
        yield from cases.benchmark_cases()


def _modules() -> Iterator[ModuleType]:
    for operation in OPERATIONS:
        if find_spec(f"ttt_kernels.{operation}.cases") is not None:
            yield import_module(f"ttt_kernels.{operation}.cases")
