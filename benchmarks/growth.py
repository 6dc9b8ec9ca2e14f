"""What grows with the tokens read, and what does not: speed, latency of `ask`, bytes stored, resident memory.

    python benchmarks/growth.py OUT.json [--quick]

One memory reads documents of about 1,024 tokens through the public API, all of one length because what a token costs
depends on its place in its document (the window fills). At each stop the same questions are asked in
every mode, and speed, sizes and memory are noted. A second store keeps the same documents with `learn=False`, which
tells the bytes of text and notepad apart from those of checkpoints.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import psutil
import texts

from ttt_memory import CompressedMemory, Sampling
from ttt_memory.model.registry import load_model
from ttt_memory.types import AnswererName, Mode

FULL: dict[str, Any] = {
    "stops": [1_024, 4_096, 16_384, 65_536],
    "document": 1_024,
    "generated": 32,
    "repeats": 3,
    "questions": 5,
}
QUICK: dict[str, Any] = {"stops": [256, 1_024], "document": 256, "generated": 8, "repeats": 1, "questions": 1}
QUESTIONS = (
    "What does add_argument do?",
    "Which method returns the name of the owner of a file?",
    "How are floats that are not a number written as JSON?",
    "What happens to a logger whose level is not set?",
    "Which rounding modes are there?",
)
ASKS: tuple[tuple[str, Mode, AnswererName], ...] = (
    ("hybrid", "hybrid", "extract"),
    ("notepad", "notepad", "extract"),
    ("hybrid, written", "hybrid", "generate"),
    ("notepad, written", "notepad", "generate"),
    ("weights", "weights", "generate"),
)


def main() -> None:
    """Measure, and write the result in one piece."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("out", type=Path)
    parser.add_argument("--quick", action="store_true", help="short texts, once: whether it works, not how fast")
    options = parser.parse_args()
    settings = QUICK if options.quick else FULL
    model = load_model()
    result = machine.result("growth", model, settings)
    with tempfile.TemporaryDirectory(prefix="ttt-memory-bench-") as folder:
        result["stops"] = grow(f"sqlite:///{folder}/learned.db", settings)
        result["verbatim_only"] = verbatim(f"sqlite:///{folder}/verbatim.db", settings)
    options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def grow(url: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """What is noted at each stop."""
    process = psutil.Process()
    documents = iter(_documents(settings))
    stops = []
    read, number = 0, 0
    with CompressedMemory.open(url, tenant="bench") as memory:
        for stop in settings["stops"]:
            receipts = []
            while read < stop:
                receipts.append(memory.ingest(next(documents), metadata={"number": number}))
                number += 1
                read += receipts[-1].tokens
            stats = memory.stats()
            stops.append(
                {
                    "tokens": stats.learned_tokens,
                    "ingest_tokens_per_second": [round(each.tokens / each.seconds, 2) for each in receipts],
                    "ask_seconds": {name: _ask(memory, mode, who, settings) for name, mode, who in ASKS},
                    "resident_mb": round(process.memory_info().rss / 1e6, 1),
                    "state_bytes": stats.state_bytes,
                    "store_bytes": stats.store_bytes,
                    "text_bytes": stats.text_bytes,
                    "passages": stats.passages,
                    "checkpoints": stats.checkpoints,
                }
            )
            print(f"  {stats.learned_tokens:>7,} tokens: {json.dumps(stops[-1])}", flush=True)
    return stops


def verbatim(url: str, settings: dict[str, Any]) -> dict[str, Any]:
    """Bytes of the same documents without weights."""
    started, tokens = time.perf_counter(), 0
    with CompressedMemory.open(url, tenant="bench") as memory:
        empty = memory.stats().store_bytes
        for document in _documents(settings):
            tokens += memory.ingest(document, learn=False).tokens
        stats = memory.stats()
    seconds = time.perf_counter() - started
    return {
        "tokens": tokens,
        "store_bytes": stats.store_bytes,
        "empty_bytes": empty,
        "text_bytes": stats.text_bytes,
        "tokens_per_second": round(tokens / seconds, 2),
    }


def _documents(settings: dict[str, Any]) -> list[str]:
    """Documents that end exactly at the stops, as far as decoding keeps the number of tokens."""
    tokenizer = load_model().tokenizer
    found, before = [], 0
    ids = texts.tokens(tokenizer, settings["stops"][-1])
    for stop in settings["stops"]:
        for first in range(before, stop, settings["document"]):
            found.append(tokenizer.decode(ids[first : min(stop, first + settings["document"])]))
        before = stop
    return found


def _ask(memory: CompressedMemory, mode: Mode, answerer: AnswererName, settings: dict[str, Any]) -> dict[str, float]:
    """Median seconds until the first piece of text and until the whole Answer, over questions and repeats."""
    sampling = Sampling(max_tokens=settings["generated"], repetition_penalty=1.1)
    first, whole = [], []
    for _ in range(settings["repeats"]):
        for question in QUESTIONS[: settings["questions"]]:
            started = time.perf_counter()
            stream = memory.ask(question, mode=mode, stream=True, answerer=answerer, sampling=sampling)
            next((piece for piece in stream if piece), None)
            first.append(time.perf_counter() - started)
            _ = stream.answer
            whole.append(time.perf_counter() - started)
    return {"first": round(statistics.median(first), 4), "whole": round(statistics.median(whole), 4)}


if __name__ == "__main__":
    main()
