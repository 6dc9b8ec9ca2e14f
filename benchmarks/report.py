"""From results to a table in the terminal and one plot."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

Results = dict[str, dict[str, Any]]
Rates = dict[str, list[float]]
FLAT = 0.9
"""A speed is called flat where its last place is at least this share of an early one."""


def table(results: Results, out: Path) -> None:
    """Print every result that is there, and which targets were met; keep the same as text."""
    console = Console(width=110, record=True)
    for name in results:
        about = results[name]["machine"]
        parts = [about["cpu"], f"{about['cores']} cores", about["isa"], f"torch {about['torch']}", about["dtype"]]
        parts += [f"{about['threads']} threads", f"load {about['load_average_at_start']}", results[name]["date"]]
        console.print(f"[bold]{name}[/]: {', '.join(parts)}", highlight=False)
    if "speed" in results:
        _print(console, "Tokens per second, median", *_speed(results["speed"]["tokens_per_second"]))
    if "growth" in results:
        _print(console, "As a memory grows", *_growth(results["growth"]["stops"]))
        console.print(f"Stored per token: {_bytes_per_token(results['growth'])}", highlight=False)
    _print(console, "Targets", ["", "target", "measured", ""], targets(results))
    console.save_text(str(out))


def targets(results: Results) -> list[list[str]]:
    """What was to be reached, what was measured, and whether it was met; ratios are medians of paired repeats."""
    rows = []
    if "speed" in results:
        rates: Rates = results["speed"]["tokens_per_second"]
        length = results["speed"]["settings"]["lengths"][-1]
        behind = results["speed"]["settings"]["behind"][1]
        for what, ours, theirs, least in (
            (f"learning / llama.cpp prefill, {length} tokens", f"learn.{length}", f"prefill.{length}", 1.3),
            (f"reading / llama.cpp prefill, {length} tokens", f"read.{length}", f"prefill.{length}", 2.3),
            (f"generating / llama.cpp, behind {behind}", f"generate.{behind}", f"generate.{behind}", 1.0),
        ):
            if rivals := {
                kind: rates[f"{kind}.{theirs}"] for kind in ("llama", "llama_flash") if f"{kind}.{theirs}" in rates
            }:
                best = max(rivals, key=lambda kind: statistics.median(rivals[kind]))
                ratio = statistics.median(a / b for a, b in zip(rates[ours], rivals[best], strict=True))
                rows.append([what, f">= {least:.1f}", f"{ratio:.2f}", _verdict(ratio >= least)])
            else:
                rows.append([what, f">= {least:.1f}", "llama-cpp-python is not installed", ""])
        places = [statistics.median(rates) for _, rates in results["speed"]["reading_by_place"]]
        rows.append(_flat("reading, last eighth of a pass / second", places[-1] / places[1]))
    if "growth" in results:
        first, second, *_, last = [stop["ingest_tokens_per_second"] for stop in results["growth"]["stops"]]
        early = statistics.median([*first, *second])
        rows.append(_flat("ingesting a document, last stop / first two", statistics.median(last) / early))
        asks = [stop["ask_seconds"]["weights"]["first"] for stop in results["growth"]["stops"]]
        rows.append(_flat("first token of ask(weights), first stop / last", asks[0] / asks[-1]))
    return rows


def plot(results: Results, out: Path) -> Path:
    """Three panels: speed by length beside llama.cpp, generating behind a text, latency by tokens read."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rates: Rates = results["speed"]["tokens_per_second"]
    stops = results["growth"]["stops"]
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(12, 3.6), layout="constrained")
    for axis, kinds, title in (
        (
            left,
            {"read": "reading", "learn": "learning", "llama.prefill": "llama.cpp prefill"},
            "tokens/s by length of text",
        ),
        (middle, {"generate": "generating", "llama.generate": "llama.cpp"}, "tokens/s generated behind a text"),
    ):
        for kind, label in kinds.items():
            points = sorted((int(k.rsplit(".", 1)[1]), v) for k, v in rates.items() if k.rsplit(".", 1)[0] == kind)
            if points:
                xs, ys = [x for x, _ in points], [statistics.median(v) for _, v in points]
                axis.plot(xs, ys, marker="o", label=label, linestyle="--" if "llama" in kind else "-")
        axis.set(title=title, xlabel="tokens", ylim=(0, None))
        axis.legend(frameon=False)
    for name in stops[0]["ask_seconds"]:
        right.plot(
            [s["tokens"] for s in stops], [s["ask_seconds"][name]["first"] for s in stops], marker="o", label=name
        )
    right.set(title="ask: seconds to the first text", xlabel="tokens read before", xscale="log", ylim=(0, None))
    right.legend(frameon=False, fontsize=8)
    about = results["speed"]["machine"]
    figure.suptitle(
        f"{about['cpu']}, {about['threads']} threads, {about['dtype']}, {results['speed']['date']}", fontsize=9
    )
    figure.savefig(out, dpi=100)
    plt.close(figure)
    return out


def _speed(rates: Rates) -> tuple[list[str], list[list[str]]]:
    lengths = sorted({int(name.rsplit(".", 1)[1]) for name in rates})
    kinds = list(dict.fromkeys(name.rsplit(".", 1)[0] for name in rates))
    rows = []
    for kind in kinds:
        cells = [rates.get(f"{kind}.{length}") for length in lengths]
        rows.append([kind.replace(".", " "), *(f"{statistics.median(cell):,.0f}" if cell else "" for cell in cells)])
    return ["behind or over (tokens)", *(f"{length:,}" for length in lengths)], rows


def _growth(stops: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    ingest = [stop["ingest_tokens_per_second"] for stop in stops]
    rows = [["ingest, tokens/s, median document", *(f"{statistics.median(rates):,.0f}" for rates in ingest)]]
    rows.append(["... all with checkpoints", *(f"{statistics.harmonic_mean(rates):,.0f}" for rates in ingest)])
    for name in stops[0]["ask_seconds"]:
        cells = (stop["ask_seconds"][name] for stop in stops)
        rows.append([f"ask {name}: first, whole (s)", *(f"{cell['first']:.2f}, {cell['whole']:.2f}" for cell in cells)])
    rows.append(["fast weights (MB)", *(f"{stop['state_bytes'] / 1e6:.1f}" for stop in stops)])
    rows.append(["resident memory (MB)", *(f"{stop['resident_mb']:,.0f}" for stop in stops)])
    rows.append(["store (MB), checkpoints", *(f"{s['store_bytes'] / 1e6:.1f}, {s['checkpoints']}" for s in stops)])
    return ["tokens read", *(f"{stop['tokens']:,}" for stop in stops)], rows


def _bytes_per_token(growth: dict[str, Any]) -> str:
    plain, last = growth["verbatim_only"], growth["stops"][-1]
    notepad = (plain["store_bytes"] - plain["empty_bytes"]) / plain["tokens"]
    text = plain["text_bytes"] / plain["tokens"]
    checkpoints = max(0, last["store_bytes"] - plain["store_bytes"]) / 1e6
    kept = f"{last['checkpoints']} checkpoints take {checkpoints:.0f} MB"
    return f"{notepad:.1f} bytes, {text:.1f} of them the text; {kept}"


def _flat(what: str, ratio: float) -> list[str]:
    return [what, f">= {FLAT}", f"{ratio:.2f}", _verdict(ratio >= FLAT)]


def _verdict(met: bool) -> str:
    return "met" if met else "NOT met"


def _print(console: Console, title: str, heads: list[str], rows: list[list[str]]) -> None:
    printed = Table(title=title, title_justify="left")
    for index, head in enumerate(heads):
        printed.add_column(head, justify="right" if index else "left", no_wrap=True)
    for row in rows:
        printed.add_row(*row)
    console.print()
    console.print(printed)
