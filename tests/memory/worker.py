"""A process to be killed: ingests, forgets and restores without end, and writes down what it was promised.

Every promise (a receipt, a forget report, a restore) is one JSON line, flushed and synced before the next verb.
"""

import json
import os
import random

from tests.memory.helpers import text
from ttt_memory import CompressedMemory


def main(url: str, journal: str, seed: int, model: str) -> None:
    draw = random.Random(seed)
    with open(journal, "a") as out:

        def promise(**entry):
            out.write(json.dumps(entry) + "\n")
            out.flush()
            os.fsync(out.fileno())

        memory = CompressedMemory.open(url, tenant="a", model=model)
        promise(did="open")
        number = seed * 1000
        while True:
            number += 1
            choice = draw.random()
            ids = [d.id for d in memory.documents()]
            if choice < 0.15 and len(ids) > 3:
                chosen = draw.choice(ids)
                promise(will="forget", id=chosen)
                memory.forget(chosen)
                promise(did="forget", id=chosen)
            elif choice < 0.25 and len(ids) > 2:
                label = f"s{number}"
                memory.snapshot(label)
                promise(did="snapshot", label=label, ids=ids)
            elif choice < 0.35 and memory.snapshots():
                label = draw.choice(memory.snapshots()).label
                promise(will="restore", label=label)
                memory.restore(label)
                promise(did="restore", label=label)
            else:
                body = text(number, draw.choice([30, 150, 600]))
                promise(will="ingest", number=number)
                receipt = memory.ingest(body)
                promise(did="ingest", number=number, id=receipt.document_id)
