"""A run in a process of its own, to be killed: python killed_run.py OUT."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from outer import Words, network
from ttt_training.trainer import train


def main() -> None:
    import torch
    from test_trainer import CONFIG

    torch.set_num_threads(1)

    def tell(record: object) -> None:
        print(record, flush=True)

    train(network(dtype=torch.float32), Words(), CONFIG, Path(sys.argv[1]), progress=tell)


if __name__ == "__main__":
    main()
