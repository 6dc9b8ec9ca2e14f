"""One rank of a run on the CPU, under torchrun's variables: `python distributed_worker.py OUT STEPS TRAIN [STOP]`.

With STOP the first rank is sent Ctrl-C after that many outer steps.

The sequences differ in their number of segments and mini-batches, as memory-shaped ones do.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ttt_training.config import TrainConfig
from ttt_training.distributed import joined
from ttt_training.trainer import train

from ttt_memory.model.fold import Segment
from ttt_memory.model.tiny import CONFIG, tiny
from ttt_memory.model.transformer import Transformer


class Endless:
    """Every `world`-th of an endless row of random sequences."""

    def __init__(self, rank: int, world: int) -> None:
        self.rank, self.world, self.next = rank, world, 0

    def __iter__(self) -> Endless:
        return self

    def __next__(self) -> tuple[Segment, ...]:
        random = np.random.default_rng(self.next + self.rank)
        self.next += self.world
        none = np.zeros(0, np.int32)
        lengths = random.integers(40, 200, int(random.integers(1, 4)))
        return tuple(Segment(none, random.integers(0, 20, length).astype(np.int32)) for length in lengths)

    def state(self) -> dict[str, int]:
        return {"next": self.next}

    def seek(self, state: dict[str, int]) -> None:
        self.next = state["next"]


def main(out: Path, steps: int, train_what: str, stop: int = 0) -> None:
    torch.set_num_threads(1)

    def interrupt(record: Mapping[str, Any]) -> None:
        if record["step"] == stop:
            os.kill(os.getpid(), signal.SIGINT)

    with joined() as group:
        rank, world = (group.rank, group.world) if group else (0, 1)
        net = Transformer(CONFIG)
        net.load_state_dict(tiny().net.state_dict())
        config = TrainConfig(steps=steps, batch=2, train=train_what, lr=1e-3, floor=1e-3, checkpoint_steps=1)
        progress = interrupt if rank == 0 else False
        train(net.double(), Endless(rank, world), config, out, progress=progress, group=group)
        if group:
            sharded = [name for name, p in net.named_parameters() if hasattr(p, "to_local")]
            if group.first:
                (out / "sharded.txt").write_text("\n".join(sharded))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], *map(int, sys.argv[4:]))
