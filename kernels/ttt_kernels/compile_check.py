"""Compiles every kernel for a GPU that need not be there: `python -m ttt_kernels.compile_check [--json OUT]`.

The operations' own host code runs on CPU tensors under a driver that compiles and does not launch. A kernel that does
not compile, does not use the tensor cores where it should, or wants more shared memory than the chip has, is an error.
Needs a process without TRITON_INTERPRET. Compiling takes minutes; Triton keeps what it compiled in its cache, so a run
that was cut short goes on where it stopped, and `--only` may be given to several processes at a time.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

TARGETS = {90: ("wgmma", 227), 80: ("mma.sync", 163)}
"""Compute capability: the tensor cores' instruction in PTX, KiB of shared memory a program may have."""


class _NoGpu:
    """The part of Triton's driver that compiling asks for."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0

    def is_active(self) -> bool:
        return True


@contextmanager
def compiling(capability: int, compiled: list[tuple[str, Any]]) -> Iterator[None]:
    """Inside, a launch compiles for `capability` and appends (kernel name, compiled kernel); nothing runs.

    The driver stays: without a GPU there is none to go back to.
    """
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    launch = JITFunction.run

    def only_compile(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        kernel = launch(self, *args, grid=grid, warmup=True, **options)
        compiled.append((self.fn.__name__, kernel))
        return kernel

    driver.set_active(_NoGpu(capability))
    JITFunction.run = only_compile
    try:
        yield
    finally:
        JITFunction.run = launch


def resources(kernel: Any, capability: int) -> dict[str, int]:
    """Registers per thread, bytes spilled to local memory per thread, bytes of shared memory per program."""
    import triton

    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    architecture = "sm_90a" if capability == 90 else f"sm_{capability}"
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "kernel.ptx"
        source.write_text(kernel.asm["ptx"])
        command = [str(tools / "ptxas"), "-v", f"-arch={architecture}", str(source), "-o", f"{folder}/kernel.cubin"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stderr
    registers, spilled = re.search(r"Used (\d+) registers", said), re.search(r"(\d+) bytes spill stores", said)
    return {
        "registers": int(registers[1]) if registers else 0,
        "spilled_bytes": int(spilled[1]) if spilled else 0,
        "shared_bytes": int(kernel.metadata.shared),
    }


def check(capability: int, only: str = "") -> Iterator[tuple[list[dict[str, Any]], list[str]]]:
    """For each case whose name contains `only`: one row per compiled kernel, and what is wrong with them."""
    from ttt_kernels.registry import compile_cases

    instruction, kibibytes = TARGETS[capability]
    for case in compile_cases():
        if only not in case.name:
            continue
        rows: list[dict[str, Any]] = []
        wrong: list[str] = []
        compiled: list[tuple[str, Any]] = []
        with compiling(capability, compiled):
            case.launch()
        seen: set[str] = set()
        for name, kernel in compiled:
            if kernel.hash in seen:
                continue
            seen.add(kernel.hash)
            count = kernel.asm["ptx"].count(instruction)
            row = {"case": case.name, "kernel": name, "target": f"sm_{capability}", "warps": kernel.metadata.num_warps,
                   "tensor_core_instructions": count, **resources(kernel, capability)}  # fmt: skip
            rows.append(row)
            print(*row.values(), sep="  ", flush=True)  # noqa: T201
            if name in case.tensor_core and not count:
                wrong.append(f"{case.name} {name} sm_{capability}: no {instruction}")
            if row["shared_bytes"] > kibibytes * 1024:
                wrong.append(f"{case.name} {name} sm_{capability}: {row['shared_bytes']} bytes of shared memory")
        missing = case.tensor_core - {name for name, _ in compiled}
        wrong += [f"{case.name} sm_{capability}: {name} was not launched" for name in sorted(missing)]
        yield rows, wrong


def main(arguments: list[str] | None = None) -> int:
    """Exit status 1 if anything is wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path, help="write the table here")
    parser.add_argument("--target", type=int, choices=list(TARGETS), help="one compute capability; all by default")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    options = parser.parse_args(arguments)
    if os.environ.get("TRITON_INTERPRET") == "1":
        print("compile_check needs a process without TRITON_INTERPRET", file=sys.stderr)  # noqa: T201
        return 2
    import torch
    import triton

    table: dict[str, Any] = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "command": f"python -m ttt_kernels.compile_check{f' --target {options.target}' if options.target else ''}"
        f"{f' --only {options.only}' if options.only else ''}",
        "machine": f"{platform.system()} {platform.machine()}, no GPU needed",
        "triton": triton.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "kernels": [],
        "wrong": [],
    }
    for capability in [options.target] if options.target else TARGETS:
        for rows, wrong in check(capability, options.only):
            table["kernels"] += rows
            table["wrong"] += wrong
            if options.json:
                options.json.parent.mkdir(parents=True, exist_ok=True)
                options.json.write_text(json.dumps(table, indent=1) + "\n")
    for line in table["wrong"]:
        print("WRONG", line)  # noqa: T201
    return 1 if table["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
