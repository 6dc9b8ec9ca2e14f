"""Find the principal directions of MiniLM's token states on books: `minilm_projection.safetensors`.

    python benchmarks/fit_token_projection.py ../shared/data/books/train-000.jsonl.xz OUT.safetensors

Late interaction stores a vector a word, on these directions a third as long. No evaluation set is used.
"""

from __future__ import annotations

import json
import lzma
import random
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from ttt_memory.notepad.embedders.minilm import MiniLM
from ttt_memory.notepad.passages import cut

TOKENS = 80_000
DIMENSIONS = 128
EXCERPT = 6_000
"""Characters read at one place of each book."""


def main(books: Path, out: Path) -> int:
    """Read excerpts until there are enough tokens, and write the directions."""
    embedder, draw = MiniLM.load(), random.Random(0)
    with lzma.open(books, "rt", encoding="utf-8") as lines:
        texts = [json.loads(line)["text"] for line in lines]
    draw.shuffle(texts)
    states: list[torch.Tensor] = []
    for text in texts:
        start = draw.randrange(max(1, len(text) - EXCERPT))
        body = text[start : start + EXCERPT]
        for left, right in cut(body, embedder)[1:-1][:5]:
            states.append(F.normalize(embedder.states(body[left:right]), dim=1))
        if sum(map(len, states)) > TOKENS:
            break
    x = torch.cat(states)
    _, directions = torch.linalg.eigh(x.T @ x / len(x))
    projection = directions.flip(1)[:, :DIMENSIONS].contiguous().half()
    save_file({"projection": projection}, out, metadata={"tokens": str(len(x)), "seed": "0"})
    print(f"{len(x)} tokens; {out}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2])))
