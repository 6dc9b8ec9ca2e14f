"""Processes to be killed while they import: forked before anything computes, so that each costs no start-up.

    import_worker.py ARCHIVE FOLDER SEED KILLS

The first import, into FOLDER/whole.db, is left to end and gives the time scale; number N goes into FOLDER/N.db.
"""

import os
import random
import signal
import sys
import time

import ttt_memory.archive_import  # loaded before the forks
from ttt_memory import CompressedMemory

assert ttt_memory.archive_import


def child(archive: str, folder: str, name: str) -> int:
    """Import in a process of its own; returns its id."""
    pid = os.fork()
    if not pid:
        CompressedMemory.import_(archive, f"sqlite:///{folder}/{name}.db").close()
        os._exit(0)
    return pid


def main(archive: str, folder: str, seed: int, kills: int) -> None:
    draw, started = random.Random(seed), time.monotonic()
    assert os.waitpid(child(archive, folder, "whole"), 0)[1] == 0
    whole = time.monotonic() - started
    for number in range(kills):
        pid = child(archive, folder, str(number))
        time.sleep(draw.uniform(0.1, 1.05) * whole)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
