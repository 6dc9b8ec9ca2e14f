"""How often the quote holds the answer: SQuAD 2, developer half, every article's paragraphs ingested."""

from __future__ import annotations

import json
import lzma
import random
from pathlib import Path

import pytest

from tests.notepad.helpers import Pad
from ttt_memory.answerers.extract import extract
from ttt_memory.ledger import Ledger
from ttt_memory.notepad.embedders import Embedder


@pytest.mark.slow
def test_four_in_five_quotes_hold_the_answer(tmp_path: Path, data_dir: Path, minilm: Embedder) -> None:
    asked: list[tuple[str, list[str]]] = []
    with Ledger.open(f"sqlite:///{tmp_path / 'memory.db'}") as ledger:
        pad = Pad(ledger.tenant("a"), minilm)
        lines = lzma.decompress((data_dir / "eval" / "squad2-dev.jsonl.xz").read_bytes()).decode().splitlines()
        for line in lines:
            for paragraph in json.loads(line)["paragraphs"]:
                pad.put(paragraph["context"])
                asked += [
                    (qa["question"], [answer["text"] for answer in qa["answers"]])
                    for qa in paragraph["qas"]
                    if not qa["is_impossible"]
                ]
        sample = random.Random(0).sample(asked, 400)
        answers = [extract(question, pad.search(question, limit=8), minilm) for question, _ in sample]
    held = sum(any(gold in answer.text for gold in golds) for answer, (_, golds) in zip(answers, sample, strict=True))
    print(f"the quote holds the answer to {held} of {len(sample)} questions")
    assert held / len(sample) >= 0.78  # 0.82 of all 1,299; a sample of 400 varies by 0.02 either way
