"""Tile sizes of the attention kernels: every candidate timed, the best per kernel and head width printed.

The tables NARROW and WIDE in ttt_kernels/attention/tiles/launch.py take the result.
Run: PYTHONPATH=.:kernels:training:adapters python gpu/attention_tune.py --only d64
"""

from __future__ import annotations

from functools import partial
from typing import Any

from attention_bench import Shape, ours
from jobs import Job, quantiles
from ttt_kernels.attention.tiles.launch import NARROW, WIDE, Tile

STAGE = {
    "forward": "forward",
    "backward_queries": "backward-inner",
    "backward_keys": "backward",
    "tangent": "double",
    "double_queries": "double",
    "double_keys": "double",
}
CANDIDATES = {
    "forward": ((128, 128, 8, 2), (128, 64, 8, 2), (128, 64, 8, 3), (128, 64, 4, 2), (64, 64, 4, 3)),
    "tangent": ((64, 64, 4, 2), (64, 64, 8, 2), (128, 64, 8, 2), (64, 32, 4, 2), (64, 32, 8, 2)),
    "backward_queries": ((64, 64, 4, 2), (64, 64, 4, 3), (64, 64, 8, 2), (128, 64, 8, 2), (128, 64, 8, 3)),
    "backward_keys": ((64, 64, 4, 2), (64, 64, 8, 2), (32, 64, 4, 2), (64, 128, 8, 2), (32, 128, 8, 2)),
    "double_queries": ((64, 32, 4, 2), (64, 32, 8, 2), (64, 64, 4, 2), (64, 64, 8, 2), (64, 16, 8, 2)),
    "double_keys": ((32, 64, 4, 1), (32, 64, 4, 2), (32, 64, 8, 2), (64, 64, 8, 2), (64, 32, 8, 1), (64, 16, 8, 1)),
}
"""Queries, keys, warps, stages. Products of queries need 64 queries for a warp group to use the tensor cores at full
rate, sums over queries 64 keys; whatever spilled hundreds of bytes when compiled without a GPU is left out."""


def timed(shape: Shape, device: str, on_load: bool, kernel: str, tile: Tile) -> dict[str, Any]:
    """Milliseconds of the stage that the kernel is part of, the other kernels at their present sizes."""
    table = NARROW if shape.width <= 64 else WIDE
    action = ours(shape, device, on_load, {**table, kernel: tile})[STAGE[kernel]]
    return quantiles(action, seconds=0.1, device=device)


def main() -> None:
    """Runs what is not done yet and prints the table."""
    job = Job("attention_tune", __doc__)
    length, window = (32, 48) if job.options.small else (1024, 8192)
    widths, count = ((16,), 1) if job.options.small else ((64, 96), None)
    for width in widths:
        shape = Shape(2, 12, 12, length, window, width)
        for kernel in STAGE:
            for on_load in (True, False):
                rotation = "on_load" if on_load else "before"
                for tile in (Tile(*numbers) for numbers in CANDIDATES[kernel][:count]):
                    size = f"{tile.queries}x{tile.keys}w{tile.warps}s{tile.stages}"
                    name = f"d{width}/{rotation}/{kernel}/{size}"
                    job.run(name, partial(timed, shape, job.device, on_load, kernel, tile))
    best: dict[str, str] = {}
    for name, row in job.cases.items():
        group = name.rsplit("/", 1)[0]
        if "ms" in row and (
            "ms" not in job.cases.get(best.get(group, ""), {}) or row["ms"] < job.cases[best[group]]["ms"]
        ):
            best[group] = name
    # A candidate that needs more than the chip has is no failure of the job.
    job.cases = {name: job.cases[name] for name in best.values()}
    job.finish(("ms",))


if __name__ == "__main__":
    main()
