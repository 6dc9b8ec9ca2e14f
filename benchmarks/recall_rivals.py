"""Other indexes on the same passages and the same vectors, in an interpreter that has them.

    python benchmarks/recall_rivals.py FOLDER

FOLDER holds `pools.json` (texts of passages and questions) and `pools.npz` (their vectors), as `recall.py` writes them;
what was found is written to `found.json` there. Needs chromadb, lancedb and bm25s, and nothing of this repository.
"""

from __future__ import annotations

import importlib.metadata
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

DEPTH = 100
Vectors = NDArray[np.float32]
Search = Callable[[str, Vectors], list[int]]


def chroma(texts: list[str], vectors: Vectors, folder: Path) -> Search:
    """Dense alone, cosine, as a local chromadb collection does it."""
    import chromadb

    client = chromadb.PersistentClient(
        path=str(folder / "chroma"), settings=chromadb.Settings(anonymized_telemetry=False)
    )
    collection = client.create_collection("passages", metadata={"hnsw:space": "cosine"}, embedding_function=None)
    ids = list(map(str, range(len(texts))))
    step = client.get_max_batch_size()
    for first in range(0, len(ids), step):
        part = slice(first, first + step)
        collection.add(ids=ids[part], embeddings=vectors[part], documents=texts[part])
    count = min(DEPTH, len(texts))

    def search(question: str, vector: Vectors) -> list[int]:
        del question
        return [int(id) for id in collection.query(query_embeddings=[vector], n_results=count)["ids"][0]]

    return search


def lance(texts: list[str], vectors: Vectors, folder: Path) -> Search:
    """Hybrid with its defaults: full text and vectors, fused by rank."""
    import lancedb

    rows = [
        {"id": number, "vector": vector, "text": text}
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]
    table = lancedb.connect(folder / "lance").create_table("passages", data=rows)
    table.create_fts_index("text")

    def search(question: str, vector: Vectors) -> list[int]:
        query = table.search(query_type="hybrid").vector(vector).text(question)
        return [int(row["id"]) for row in query.limit(DEPTH).to_list()]

    return search


def bm25(texts: list[str], vectors: Vectors, folder: Path) -> Search:
    """Words alone, with bm25s's own tokenizer, English stop words left out."""
    import bm25s

    del vectors, folder
    retriever = bm25s.BM25()
    retriever.index(bm25s.tokenize(texts, stopwords="en", show_progress=False), show_progress=False)
    count = min(DEPTH, len(texts))

    def search(question: str, vector: Vectors) -> list[int]:
        del vector
        words = bm25s.tokenize(question, stopwords="en", show_progress=False)
        found, scores = retriever.retrieve(words, k=count, show_progress=False)
        return [int(row) for row, score in zip(found[0], scores[0], strict=True) if score > 0]

    return search


RIVALS = {"chromadb": chroma, "lancedb hybrid": lance, "bm25s": bm25}
_PACKAGES = {"chromadb": "chromadb", "lancedb hybrid": "lancedb", "bm25s": "bm25s"}


def main(folder: Path) -> int:
    """Index every pool with every rival, ask every question, and write which passages came back."""
    pools: list[dict[str, Any]] = json.loads((folder / "pools.json").read_text(encoding="utf-8"))
    arrays = np.load(folder / "pools.npz")
    found: dict[str, Any] = {
        name: {"version": importlib.metadata.version(_PACKAGES[name]), "pools": []} for name in RIVALS
    }
    for number, pool in enumerate(pools):
        vectors, asked = arrays[f"passages_{number}"], arrays[f"questions_{number}"]
        for name, build in RIVALS.items():
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
                started = time.perf_counter()
                search = build(pool["passages"], vectors, Path(scratch))
                built = time.perf_counter() - started
                rows, seconds = [], []
                for question, vector in zip(pool["questions"], asked, strict=True):
                    started, spent = time.perf_counter(), time.process_time()
                    rows.append(search(question, vector))
                    seconds.append((time.perf_counter() - started, time.process_time() - spent))
            clock, processor = (round(1_000 * statistics.median(some), 3) for some in zip(*seconds, strict=True))
            each = {"rows": rows, "build_s": round(built, 2), "median_ms": clock, "median_cpu_ms": processor}
            found[name]["pools"].append(each)
    (folder / "found.json").write_text(json.dumps(found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
