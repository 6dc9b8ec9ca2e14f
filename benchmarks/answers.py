"""How often an answer is right, and whether `grounded` and `confidence` say so: developer halves of the eval sets.

    python benchmarks/answers.py ../shared/data/eval benchmarks/results/answers.json [--cache FOLDER] [--written 140]

Every article is ingested and every question asked through the public API. Quotes: all questions of SQuAD 2, NQ-open,
HotpotQA and MuSiQue. Claims and written answers, free and held to spans of the passages: a sample of SQuAD 2, by the
local model. Confidence is fitted on signals and judged by fits that did not see the article; the result holds the
numbers that ttt_memory/answerers/calibration.py must have. `--cache` keeps embeddings and written answers between runs.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import machine
import numpy as np
from answers_claims import claims
from answers_data import Article, Asked, f1, holds, load
from answers_fit import auroc, calibration
from answers_memory import Kept, Vectors, memory_of
from answers_quotes import MAIN, MIXTURE, ask, quotes
from answers_spans import span

from ttt_memory import CompressedMemory
from ttt_memory.answerers import calibration as present
from ttt_memory.answerers.generate import DEFAULT_SAMPLING
from ttt_memory.lane import lane_for
from ttt_memory.model.registry import DEFAULT_MODEL, load_model
from ttt_memory.types import Answer

LIMIT = 8
"""Passages that `ask` looks at."""
WRITTEN = {"answerable": 100, "unanswerable": 40}


def main() -> None:
    """Measure, and write the result in one piece."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("data", type=Path, help="folder of the evaluation sets")
    parser.add_argument("out", type=Path)
    parser.add_argument("--cache", type=Path, default=Path(tempfile.gettempdir()) / "ttt-memory-answers")
    parser.add_argument("--sample", type=int, default=500, help="of questions without an answer, of either sort")
    parser.add_argument("--written", type=int, default=sum(WRITTEN.values()), help="questions for the local model")
    chosen = parser.parse_args()
    chosen.cache.mkdir(parents=True, exist_ok=True)
    sets = load(chosen.data)
    read = sets[MAIN]
    model = load_model(DEFAULT_MODEL)
    settings = {
        "sample": chosen.sample,
        "written": chosen.written,
        "passages": LIMIT,
        "mixture": MIXTURE,
        "code": _code(),
    }
    result = machine.result("answers", model, settings)
    # Named as they lie beside a developer's checkout; the cache changes nothing.
    result["command"] = (
        f"python benchmarks/answers.py ../shared/data/eval benchmarks/results/{chosen.out.name} "
        f"--sample {chosen.sample} --written {chosen.written}"
    )
    vectors = Vectors(chosen.cache)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        print("quotes", flush=True)
        kept, key = Kept(chosen.cache / "quotes.jsonl"), f"{chosen.sample} {_code()}"
        if key not in kept:
            quoted, fitted = quotes(sets, place, vectors, chosen.sample)
            kept.add(key, {"quotes": quoted, "fitted": fitted})
        result["quotes"], quote = kept[key]["quotes"], kept[key]["fitted"]
        print("claims", flush=True)
        with memory_of(read, place / f"{MAIN}.db", vectors) as memory:
            result["claims"], claim = claims(read, memory, vectors)
            print("written answers", flush=True)
            result["written"], written = writing(read, memory, chosen.cache, chosen.written)
    result["calibration"] = {"quote": quote, "claim": claim, "written": written}
    vectors.keep()
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    table(result)


def writing(
    read: Sequence[Article], memory: CompressedMemory, cache: Path, count: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The first `count` of a fixed sample, answered by the local model: free, and held to spans; and quoted."""
    model = load_model(DEFAULT_MODEL)
    lane = lane_for(sum(parameter.numel() for parameter in model.net.parameters()))
    draw = random.Random(0)
    every = [asked for article in read for asked in article.asked]
    chosen = draw.sample([q for q in every if q.golds], WRITTEN["answerable"])
    chosen += draw.sample([q for q in every if not q.golds], WRITTEN["unanswerable"])
    draw.shuffle(chosen)
    chosen = chosen[:count]
    kept = Kept(cache / f"written-{model.fingerprint[:12]}.jsonl")
    rows = []
    started = time.perf_counter()
    for number, asked in enumerate(chosen):
        hits = memory.search(asked.text, limit=LIMIT)
        key = f"{asked.id} {[(hit.start, hit.text[:20]) for hit in hits]}"
        if key not in kept:
            said = memory.ask(asked.text, mode="notepad", answerer="generate", sampling=DEFAULT_SAMPLING)
            held = lane.run(_job(partial(span, model, asked.text, hits))) if asked.golds else ""
            kept.add(key, {"free": said.text, "likelihood": said.confidence, "span": held})
            print(f"  {number + 1} of {len(chosen)}, {time.perf_counter() - started:.0f} s", flush=True)
        rows.append((asked, kept[key], judged(memory, asked, kept[key]["free"]), ask(memory, asked.text)))
    return _of_written(rows)


def _of_written(
    rows: Sequence[tuple[Asked, dict[str, Any], dict[str, Any], Answer]],
) -> tuple[dict[str, Any], dict[str, Any]]:
    asked = [row for row in rows if row[0].golds]
    right = [bool(q.golds) and holds(kept["free"], q.golds) for q, kept, _, _ in rows]
    fitted = calibration(
        [signals for _, _, signals, _ in rows],
        list(present.WRITTEN.weights),
        right,
        [0.5 / len(asked) if q.golds else 0.5 / max(1, len(rows) - len(asked)) for q, _, _, _ in rows],
        [q.article for q, _, _, _ in rows],
        [kept["likelihood"] for _, kept, _, _ in rows],
        ridge=0.01,  # the sample is small
    )
    truth, even = np.array(right, float), np.ones(len(right))
    grounded = [bool(signals["grounded"]) for _, _, signals, _ in rows]

    def share(values: Sequence[bool | float]) -> float:
        return round(float(np.mean(values)), 4) if values else 0.0

    return {
        "questions": {"answerable": len(asked), "unanswerable": len(rows) - len(asked)},
        "free_holds_the_answer": share([holds(kept["free"], q.golds) for q, kept, _, _ in asked]),
        "span_holds_the_answer": share([holds(kept["span"], q.golds) for q, kept, _, _ in asked]),
        "quote_holds_the_answer": share([holds(a.text, q.golds) for q, _, _, a in asked]),
        "f1": {
            "free": share([f1(kept["free"], q.golds) for q, kept, _, _ in asked]),
            "span": share([f1(kept["span"], q.golds) for q, kept, _, _ in asked]),
            "quote": share([f1(a.text, q.golds) for q, _, _, a in asked]),
        },
        "grounded": share(grounded),
        "right_where_grounded": share([r for r, g in zip(right, grounded, strict=True) if g]),
        "right_where_not_grounded": share([r for r, g in zip(right, grounded, strict=True) if not g]),
        "auroc_of_support_alone": round(auroc(np.array([s["support"] for _, _, s, _ in rows]), truth, even), 4),
    }, fitted


def judged(memory: CompressedMemory, asked: Asked, text: str) -> dict[str, Any]:
    """The signals and the verdict that `ask` comes to for a text that was written before."""
    said = memory.ask(asked.text, mode="notepad", answerer=Said(text), explain=True)
    assert said.prompt is not None
    return {**said.prompt.signals, "grounded": said.grounded}


class Said:
    """An answerer that repeats what the local model wrote, over the passages that it saw."""

    name, passages = "said", LIMIT

    def __init__(self, text: str) -> None:
        self._text = text

    def prompt(self, question: str, passages: Sequence[Any]) -> Any:
        """The local model's prompt."""
        from ttt_memory.answerers.generate import prompt

        return prompt(load_model(DEFAULT_MODEL), question, passages)

    def answer(self, prompt: Any) -> Any:
        """The text in one piece."""
        return iter([self._text])


def _code() -> str:
    """Digest of the code that finds and quotes: results of other code are not taken up again."""
    folder = Path(present.__file__).parents[1]
    digest = hashlib.sha256()
    for file in [*sorted((folder / "notepad").rglob("*.py")), folder / "answerers" / "extract.py"]:
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def _job(function: Any) -> Any:
    return function()
    yield  # a generator: the lane takes nothing else


def table(result: dict[str, Any]) -> None:
    """Print what matters, and whether the committed numbers are these."""
    quoted, written = result["quotes"], result["written"]
    print(json.dumps({k: v for k, v in quoted.items() if k not in ("refusing_at", "sets")}))
    print(json.dumps(written))
    for name, measured in quoted["sets"].items():
        print(name, json.dumps(measured))
    for name, logistic in (("quote", present.QUOTE), ("claim", present.CLAIM), ("written", present.WRITTEN)):
        fitted = result["calibration"][name]
        print(name, "auroc", fitted["auroc"], "ece before", fitted["before"]["ece"], end=" ")
        print("after", fitted["after, on groups not fitted"]["ece"])
        if (logistic.bias, dict(logistic.weights)) != (fitted["bias"], fitted["weights"]):
            print(f"  calibration.py differs: Logistic({fitted['bias']}, {fitted['weights']})", file=sys.stderr)


if __name__ == "__main__":
    main()
