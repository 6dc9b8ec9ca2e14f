"""Measure evidence recall of the notepad beside chromadb, lancedb, bm25s and dense alone, in one run.

    python benchmarks/recall.py --rivals PYTHON [--data ../shared/data/eval] [--only squad2] [--again]

PYTHON is an interpreter that has `requirements/bench-recall.txt` (an environment of its own: they are of no use to the
package). Every method searches the same passages, each under its date and speaker, and the same vectors where it
uses any. A set that is in the result
already is not measured again; vectors are kept in the user's cache, so a second run embeds nothing.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recall_cache import CachedMiniLM
from recall_ours import Ours, recall, run, units
from recall_sets import SETS, Pool, Unit, load

from ttt_memory.cache_folder import cache_dir

HERE = Path(__file__).parent
OURS, DENSE = "ttt_memory", "dense alone"
TARGETS = {
    "locomo": {"recall@10": 80.0},
    "beam": {"recall@10": 63.0},
    "squad2": {"recall@1": 84.0, "recall@10": 98.5},
    "hotpotqa": {"recall@10": 95.0},
    "musique": {"recall@10": 77.0},
    "kv": {"recall@1": 100.0},
}
LATENCY = "latency"
QUESTIONS = 200


def main() -> int:
    """Measure what is missing, then print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rivals", type=Path, help="interpreter with chromadb, lancedb and bm25s; without: ours alone")
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared" / "data" / "eval")
    parser.add_argument("--only", choices=[*SETS, LATENCY], help="this set alone")
    parser.add_argument("--again", action="store_true", help="measure again what was measured before")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "recall.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    result = _head(options.out, options.rivals)
    with CachedMiniLM(cache_dir() / "benchmarks" / "recall.sqlite") as embedder:
        for name in [*SETS, LATENCY] if options.only is None else [options.only]:
            if name in result["sets"] and not options.again:
                continue
            print(f"{name}: measuring", flush=True)
            measured = measure_latency if name == LATENCY else measure
            result["sets"][name] = measured(name, options.data, options.rivals, embedder)
            options.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(table(result))
    return 0


def measure(name: str, data: Path, rivals: Path | None, embedder: CachedMiniLM) -> dict[str, Any]:
    """Recall of every method on one set."""
    pools = load(name, data)
    ours: list[Ours] = []
    for pool in pools:
        with tempfile.TemporaryDirectory() as folder:
            ours.append(run(pool, Path(folder), embedder))
    asked = [question for pool in pools for question in pool.questions]
    methods: dict[str, Any] = {OURS: recall(asked, [found for each in ours for found in each.ranked])}
    for method, rows in {DENSE: _dense(pools, ours, embedder), **_rivals(pools, ours, rivals, embedder)}.items():
        found = [
            units(question, [each.passages[row] for row in some])
            for pool, each, mine in zip(pools, ours, rows["rows"], strict=True)
            for question, some in zip(pool.questions, mine, strict=True)
        ]
        methods[method] = recall(asked, found) | {key: rows["also"][key] for key in ("version",) if key in rows["also"]}
    count = sum(len(each.passages) for each in ours)
    best = {
        key: max(values[key] for method, values in methods.items() if method != OURS)
        for key in ("recall@1", "recall@5", "recall@10")
    }
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "pools": len(pools),
        "questions": len(asked),
        "passages": count,
        "token_vector_bytes_per_passage": round(sum(each.token_bytes for each in ours) / count),
        "methods": methods,
        "best_of_the_others": best,
        "at_or_above_the_best": {key: methods[OURS][key] >= value for key, value in best.items()},
        "targets": TARGETS[name],
        "met": {key: methods[OURS][key] >= value for key, value in TARGETS[name].items()},
    }


def _dense(pools: list[Pool], ours: list[Ours], embedder: CachedMiniLM) -> dict[str, Any]:
    rows = []
    for pool, each in zip(pools, ours, strict=True):
        asked = embedder.embed([question.text for question in pool.questions])
        rows.append(np.argsort(-(asked @ each.vectors.T), axis=1, kind="stable")[:, :100].tolist())
    return {"rows": rows, "also": {}}


def _rivals(pools: list[Pool], ours: list[Ours], python: Path | None, embedder: CachedMiniLM) -> dict[str, Any]:
    """Rows of passages found by each rival, by pool and question."""
    if python is None:
        return {}
    with tempfile.TemporaryDirectory() as scratch:
        folder, arrays = Path(scratch), {}
        for number, (pool, each) in enumerate(zip(pools, ours, strict=True)):
            arrays[f"passages_{number}"] = each.vectors
            arrays[f"questions_{number}"] = embedder.embed([question.text for question in pool.questions])
        np.savez(folder / "pools.npz", allow_pickle=False, **arrays)
        texts = [
            {"passages": [text for _, text in each.passages], "questions": [q.text for q in pool.questions]}
            for pool, each in zip(pools, ours, strict=True)
        ]
        (folder / "pools.json").write_text(json.dumps(texts), encoding="utf-8")
        subprocess.run([python, HERE / "recall_rivals.py", folder], check=True)
        found = json.loads((folder / "found.json").read_text(encoding="utf-8"))
    return {
        name: {
            "rows": [pool["rows"] for pool in rival["pools"]],
            "also": {
                **{
                    key: round(statistics.median(pool[key] for pool in rival["pools"]), 2)
                    for key in ("median_ms", "median_cpu_ms")
                },
                "version": rival["version"],
            },
        }
        for name, rival in found.items()
    }


def measure_latency(name: str, data: Path, rivals: Path | None, embedder: CachedMiniLM) -> dict[str, Any]:
    """Median time of a search over the passages of all sets together, and what token vectors cost."""
    del name
    pools = [pool for each in SETS for pool in load(each, data)]
    texts = [
        Unit(f"{pool.name}/{unit.key}", unit.text, unit.stream, unit.sequence, unit.observed_at, unit.metadata)
        for pool in pools
        for unit in pool.units
    ]
    asked = [question for pool in pools for question in pool.questions]
    mixed = Pool("mixed", texts, asked[:: max(1, len(asked) // QUESTIONS)][:QUESTIONS])
    with tempfile.TemporaryDirectory() as folder:
        each = run(mixed, Path(folder), embedder)
    others = _rivals([mixed], [each], rivals, embedder)
    return {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "passages": len(each.passages),
        "questions": len(mixed.questions),
        "search_without_embedding_the_question": {
            OURS: _milliseconds(each.seconds),
            **{method: rows["also"] for method, rows in others.items()},
        },
        "token_vectors": _token_cost(each, embedder),
    }


def _token_cost(each: Ours, embedder: CachedMiniLM) -> dict[str, float]:
    """What token vectors add to embedding a passage: bytes in the store, and milliseconds beside the pass itself."""
    from ttt_memory.notepad import late

    inner, sample = embedder.inner, [text for _, text in each.passages[:: max(1, len(each.passages) // 64)]][:64]
    inner.embed(sample[:4])
    started = time.perf_counter()
    inner.embed(sample)
    alone = time.perf_counter() - started
    started = time.perf_counter()
    _, found = late.embed(inner, sample)
    packed = [late.pack(words.vectors) for words in found or []]
    both = time.perf_counter() - started
    return {
        "bytes_per_passage": round(each.token_bytes / len(each.passages)),
        "bytes_per_word": round(sum(map(len, packed)) / sum(len(words.pieces) for words in found or []), 1),
        "embed_ms_per_passage": round(1_000 * alone / len(sample), 2),
        "embed_ms_per_passage_with_token_vectors": round(1_000 * both / len(sample), 2),
    }


def _milliseconds(seconds: list[tuple[float, float]]) -> dict[str, float]:
    """Medians on the clock and on the processor; on a busy machine the second says more."""
    clock, processor = zip(*seconds, strict=True)
    return {
        "median_ms": round(1_000 * statistics.median(clock), 2),
        "median_cpu_ms": round(1_000 * statistics.median(processor), 2),
    }


def _head(out: Path, rivals: Path | None) -> dict[str, Any]:
    """The result so far, or the head of a new one."""
    try:
        known: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))["sets"]
    except (OSError, ValueError, KeyError):
        known = {}
    words = ["python", "benchmarks/recall.py", *(["--rivals", "PYTHON"] if rivals else [])]
    return {
        "measurement": "recall",
        "command": shlex.join(words),
        "metric": "evidence recall@k: mean share of a question's evidence among the first k units, per cent",
        "embedder": "all-MiniLM-L6-v2",
        "tuned_on": "these developer halves, one setting for all sets",
        "machine": {
            "cores": os.cpu_count(),
            "system": f"{platform.system()} {platform.machine()}",
            "python": platform.python_version(),
            "torch": torch.__version__,
            "threads": 1,
            "load_average_at_start": [round(load, 2) for load in os.getloadavg()],
        },
        "sets": known,
    }


def table(result: dict[str, Any]) -> str:
    """The result for the terminal."""
    lines = []
    for name, measured in result["sets"].items():
        if name == LATENCY:
            lines.append(f"{name}: {json.dumps(measured['search_without_embedding_the_question'])}")
            continue
        lines.append(f"{name}: {measured['questions']} questions, {measured['passages']} passages")
        for method, values in measured["methods"].items():
            shown = "  ".join(f"R@{k} {values[f'recall@{k}']:6.2f}" for k in (1, 5, 10))
            lines.append(f"  {method:<16} {shown}")
        lines.append(f"  targets {measured['targets']}: met {measured['met']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
