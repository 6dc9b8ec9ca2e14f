"""What the processes of `test_base_store.py` run; imports little, because each process imports it anew."""

import os

from ttt_memory.model.base_store import prepare


def prepare_into(folder, cache, results):
    os.environ["TTT_MEMORY_CACHE"] = cache
    results.put(prepare(folder).manifest["sha256"])
