"""One-factor comparisons: the default training, and others that differ from it in one thing each."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ttt_memory.model.config import ModelConfig
from ttt_memory.model.loaded import LoadedModel
from ttt_training.config import RecallConfig
from ttt_training.evaluate.books import Book
from ttt_training.evaluate.needles import needles
from ttt_training.evaluate.progress import Progress
from ttt_training.evaluate.reading import fresh, learn
from ttt_training.evaluate.subjects import Subject, subjects
from ttt_training.evaluate.tables import number
from ttt_training.evaluate.weights_file import load_weights
from ttt_training.planning import logged_speed
from ttt_training.recipes import Changes

MUON_RATE = 1e-3
"""Inner rate that a Muon-style write starts from: its step has the same size whatever the gradient's."""
DECAY = 0.01
RECALL = 0.1


@dataclass(frozen=True)
class Factor:
    """One run: what it is called, what differs from the default, and the changes of the recipe."""

    name: str
    about: str
    changes: Changes


def factors(config: ModelConfig, *, tokens: int, length: int | None, seed: int) -> tuple[Factor, ...]:
    """The default and seven others.

    Args:
        config: of the base model: the others are relative to it.
        tokens, length, seed: of every run; all but the window's read the same sequences.
    """
    width, window = max(1, config.dynamic_mlp // 3), 2 * (config.window or config.context_tokens)
    blocks = min(config.layers, max(config.dynamic_layers + 1, config.dynamic_layers * 3 // 2))
    batch = max(1, config.inner.mini_batch // 2)
    # A learned rate moves by AdamW's learning rate a step: a hundredth of what it starts from, as by default.
    muon = {"rate_lr": MUON_RATE / 100, "rate_floor": MUON_RATE / 1e4}

    def one(name: str, about: str, training: Mapping[str, Any] | None = None, **changes: Any) -> Factor:
        every = {"seed": seed, **(training or {})}
        # The recipe's decay was chosen later, by drift; the committed table is of runs without.
        inner = {"decay": 0.0, **(changes.pop("inner", {}))}
        return Factor(name, about, Changes(tokens=tokens, length=length, training=every, inner=inner, **changes))

    return (
        one("default", "as the recipe has it, without decay"),
        one("muon", f"Muon-style write, rate {MUON_RATE:g}", muon, inner={"rule": "muon", "rate": MUON_RATE}),
        one("decay", f"each write gives back {DECAY:g} of the distance to W0", inner={"decay": DECAY}),
        one("width", f"dynamic MLPs {width} wide instead of {config.dynamic_mlp}", model={"dynamic_mlp": width}),
        one("blocks", f"{blocks} dynamic blocks instead of {config.dynamic_layers}", model={"dynamic_layers": blocks}),
        one("mini-batch", f"a write every {batch} tokens", inner={"mini_batch": batch}),
        one("window", f"window {window}", model={"window": window, "context_tokens": window}),
        one("recall", f"recall term of weight {RECALL:g}", {"recall": RecallConfig(weight=RECALL)}),
    )


def measured(
    base: LoadedModel, run: Path, texts: Sequence[Book], tokens: int, progress: Progress, *, distances: Sequence[int]
) -> dict[str, Any]:
    """What a trained run is worth on texts that it was not trained on.

    Args:
        base: that training started from.
        run: folder of the run's one phase.
        texts: read one by one from W0.
        tokens: read of each.
        progress: keeps finished pieces.
        distances: of the codes hidden in each text from its end; larger than any window.

    Returns:
        `loss` (held out, before each write), `late` (its second half), `again`: closed-book recall, the nats by which
        a passage (the second quarter, read long ago) is less surprising under its own memory than under W0, in a fresh
        window; `chosen`: share of hidden codes picked out of ten; `state_bytes` (fp32), `trained_tokens_per_second`.
    """
    (subject,) = subjects("ttt", base, weights=load_weights(run / "final.safetensors", base))
    rows = [_read(subject, text, tokens, progress) for text in texts]
    codes = needles(subject, texts, tokens, progress, distances=distances)["by_distance"]
    assert subject.state is not None
    state = [*subject.state.gate, *subject.state.up, *subject.state.down]
    return {
        **{part: float(np.mean([row[part] for row in rows])) for part in ("loss", "late", "again")},
        "chosen": float(np.mean([found["weights"]["chosen"] for found in codes.values()])),
        "state_bytes": sum(tensor.numel() * 4 for tensor in state),
        "trained_tokens_per_second": logged_speed(run),
        "documents": rows,
    }


def _read(subject: Subject, text: Book, tokens: int, progress: Progress) -> dict[str, Any]:
    def work() -> dict[str, Any]:
        assert subject.state is not None
        nats, state = learn(subject.model, subject.state, text.tokens[:tokens])
        passage = text.tokens[tokens // 4 : tokens // 2]
        again = fresh(subject.model, subject.state, passage) - fresh(subject.model, state, passage)
        late = nats[len(nats) // 2 :]
        return {"document": text.name, "loss": float(nats.mean()), "late": float(late.mean()), "again": again}

    key = {"measurement": "factors", "text": text.name, "tokens": tokens, **subject.identity}
    return progress.once(key, text.name, 1.0, work)


def table(found: Mapping[str, Any]) -> str:
    """The result as Markdown."""
    processors = sorted({row["cpu"] for row in found["runs"].values()})
    lines = [
        f"# One factor at a time\n\n`{found['command']}`, {found['date']}, {'; '.join(processors)}.\n",
        "| run | what differs | held-out loss | second half | recalled, nats | codes chosen of 10 | state, MB "
        "| trained, tokens/s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, row in found["runs"].items():
        cells = (name, row["about"], number(row["loss"]), number(row["late"]), number(row["again"]))
        sizes = (f"{row['chosen']:.2f}", f"{row['state_bytes'] / 1e6:.1f}", f"{row['trained_tokens_per_second']:,.0f}")
        lines.append(f"| {' | '.join((*cells, *sizes))} |")
    settings = found["settings"]
    if len(processors) > 1:
        lines.append("\nNot all runs were made on one machine: their speeds do not compare.")
    lines.append(
        f"\nEach run: {settings['trained_tokens']:,} tokens, seed {settings['seed']}. "
        f"Held out: {settings['documents']} texts of {settings['tokens']:,} tokens of {settings['data']}, losses "
        "before each write. Recalled: closed book, what a passage read long before costs less under its own memory "
        "than under W0. One seed: differences of a few thousandths of a nat mean nothing.\n"
    )
    return "\n".join(lines)


def write(found: Mapping[str, Any], out: Path) -> None:
    """The result as JSON, and the table beside it as Markdown."""
    out.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((out, json.dumps(found, indent=1) + "\n"), (out.with_suffix(".md"), table(found))):
        partial = path.with_suffix(f"{path.suffix}.part")
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
