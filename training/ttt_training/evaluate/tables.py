"""Results as plain text for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from ttt_training.evaluate.targets import Target


def show(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints a table: the first column left, the others right."""
    widths = [max(len(row[i]) for row in [heads, *rows]) for i in range(len(heads))]
    lines = [title]
    for row in [heads, *rows]:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    sys.stdout.write("\n".join(lines) + "\n\n")


def number(value: float | None) -> str:
    """Nats with three decimals; nothing for None."""
    return "" if value is None else f"{value:.3f}"


def interval(found: Mapping[str, Any]) -> str:
    """A mean difference with its 95 % interval."""
    if found["low"] is None:
        return f"{found['mean']:+.3f}"
    return f"{found['mean']:+.3f} [{found['low']:+.3f}, {found['high']:+.3f}]"


def compare(found: Mapping[str, Any]) -> None:
    """The means of every name, the intervals against the first of them, and the targets."""
    results = found["results"]
    first = next(iter(results))
    against = found["intervals"].get(first, {})
    rows = []
    for name, r in results.items():
        losses = (r["mean"], r["mean_after_4096"], r["bins"][0], r["bins"][-1])
        below = interval(against[name]["mean"]) if name in against else ""
        rows.append([name, *map(number, losses), below, r["about"]])
    show("Nats per token", ["", "mean", "after 4,096", "first bin", "last bin", f"{first} - this", ""], rows)
    _targets(found)


def specificity(found: Mapping[str, Any]) -> None:
    """Losses by stretch and memory, and the intervals."""
    rows = [
        [stretch, *(number(means[name]) for name in ("w0", "own", "other"))]
        + [interval(means[pair]) for pair in ("w0 - own", "other - own", "other - w0")]
        for stretch, means in found["intervals"].items()
    ]
    show("Nats per token in a fresh window", ["", "w0", "own", "other", "w0 - own", "other - own", "other - w0"], rows)
    _targets(found)


def answering(found: Mapping[str, Any]) -> None:
    """Token F1 by condition."""
    lost = found["intervals"]
    rows = [
        [name, f"{f1:.1f}", interval(lost[f"base - {name}"]) if f"base - {name}" in lost else ""]
        for name, f1 in found["f1"].items()
    ]
    show(f"Token F1 of {found['questions']} questions, percent", ["", "F1", "base - this"], rows)
    _targets(found)


def drift(found: Mapping[str, Any]) -> None:
    """Loss on fresh text by tokens read before."""
    rows = [[f"{stop['read']:,}", number(stop["loss"]), interval(stop["rise"])] for stop in found["stops"]]
    show("Fresh text, nats per token", ["tokens read before", "loss", "rise"], rows)
    _targets(found)


def needles(found: Mapping[str, Any]) -> None:
    """Recall by distance."""
    show("Codes recalled: closed book, with the window, with the notepad", *recalled(found))


def recalled(found: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of what `needles` found; the terminal and the model card show the same."""
    rows = [
        [f"{int(distance):,}", *(f"{here['weights'][k]:.2f}" for k in ("chosen", "exact", "nats"))]
        + [f"{here['w0'][k]:.2f}" for k in ("chosen", "nats")]
        + [f"{here['window']['exact']:.2f}", f"{here['hybrid']['exact']:.2f}" if "hybrid" in here else ""]
        for distance, here in found["by_distance"].items()
    ]
    heads = ["tokens from the end", "chosen", "exact", "nats", "W0 chosen", "W0 nats", "window exact", "hybrid exact"]
    return heads, rows


def _targets(found: Mapping[str, Any]) -> None:
    lines = [Target(**line) for line in found["targets"]]
    rows = [[line.what, line.bar, line.measured, "met" if line.met else "NOT met"] for line in lines]
    if rows:
        show("Targets", ["", "target", "measured", ""], rows)
