"""Model cards: what a learned initialisation was made of and what it is worth, from its own file and result files."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ttt_memory.errors import InvalidInputError
from ttt_memory.model.initialisation import Initialisation
from ttt_training.evaluate.tables import recalled

NOT_STATED = "not stated"
_LEARNED = "A learned initialisation of test-time-trained fast weights."
_CONTROL = (
    "A control: what the same training without writes makes, to be compared with. It never learned to be written to."
)
_CODES = "Codes hidden in each text. `chosen`: over nine others; `exact`: written out; `nats`: per token of it."
_LIMITS = """- The fast weights do not recall rare exact strings (names, codes, dates); the notepad does.
- It is as able and as biased as its base model, in that model's languages.
- It learns whatever it reads, true or not. A memory forgets a document only by replaying without it.
- Measured on text like that of the evaluation above, and on nothing else."""


def card(
    made: Initialisation, *, data: str | None = None, hardware: str | None = None, evaluations: Sequence[Path] = ()
) -> str:
    """The card as Markdown.

    Args:
        made: the exported file.
        data: what was trained on and its licences, in words; None says that it is not stated.
        hardware: in words; None says what the run wrote down.
        evaluations: results of `ttt_training.evaluate`.

    Raises InvalidInputError for a result that cannot be read.
    """
    about, config = made.training, made.config
    settings, machine = about.get("settings", {}), about.get("machine", {})
    run, texts = about.get("about", {}), about.get("data", {})
    seconds = about.get("seconds")
    facts = {
        "Base": f"{made.base}; changed in it: {', '.join(_changed(made))}",
        "Licence": about.get("licence", NOT_STATED),
        "Size": f"{made.path.stat().st_size / 1e6:.1f} MB, SHA-256 `{made.sha256}`",
        "Dynamic MLPs": f"{config.dynamic_layers} of {config.layers} blocks, {config.dynamic_mlp} wide; window "
        f"{config.window or 'full'}, a write every {config.inner.mini_batch} tokens "
        f"({config.inner.rule}, {_decay(made)})",
        "Data": f"{data or NOT_STATED}{_files(run.get('files', []), texts)}",
        "Command": f"`{run['command']}`" if "command" in run else NOT_STATED,
        "Outer steps": f"{_count(about.get('steps'))}, {_count(about.get('tokens'))} tokens; recipe "
        f"`{about.get('recipe', NOT_STATED)}`; {_count(about.get('skipped'))} steps skipped",
        "Hours": NOT_STATED if seconds is None else f"{seconds / 3600:.2f}",
        "Hardware": hardware or _hardware(machine, run, about.get("gpu")),
        "Seed": str(settings.get("seed", NOT_STATED)),
        "Date": about.get("date", NOT_STATED),
    }
    lines = [f"# {made.name}", "", _CONTROL if settings.get("inner") == "none" else _LEARNED, ""]
    lines += ["| | |", "| --- | --- |"]
    lines += [f"| {name} | {value} |" for name, value in facts.items()]
    lines += ["", "Outer loop: " + (f"`{json.dumps(settings, sort_keys=True)}`" if settings else NOT_STATED)]
    lines += ["", "## Evaluation", ""]
    for path in evaluations:
        lines += [*_evaluation(path), ""]
    if not evaluations:
        lines += ["None was given for this card.", ""]
    return "\n".join([*lines, "## Limits", "", _LIMITS, ""])


def _changed(made: Initialisation) -> list[str]:
    found = {key.partition("/")[0] for key in made.tensors()}
    kinds = {
        "W0": {name for name in found if "w0_" in name},
        "inner rates": found & {"inner_rates"},
        "norms": {name for name in found if "norm" in name},
    }
    kinds["static matrices"] = found - set().union(*kinds.values())
    return [kind for kind, names in kinds.items() if names]


def _decay(made: Initialisation) -> str:
    read = made.config.inner.decay
    trained = made.training.get("inner", {}).get("decay", read)
    return f"decay to W0 {read:g}" + (f", trained with {trained:g}" if trained != read else "")


def _files(files: Sequence[str], texts: Mapping[str, Any]) -> str:
    named = f" Files: {', '.join(files)}." if files else ""
    size = f" {texts['documents']:,} documents, {texts['tokens']:,} tokens at hand." if "tokens" in texts else ""
    return f".{named}{size}" if named or size else ""


def _hardware(machine: Mapping[str, Any], run: Mapping[str, Any], gpu: str | None) -> str:
    found = [gpu or machine.get("gpu"), machine.get("cpu") or machine.get("processor"), machine.get("system")]
    parts = [str(part) for part in found if part and part != "none"]
    if "threads" in machine:
        parts.append(f"{machine['threads']} threads")
    if "torch" in machine:
        parts.append(f"PyTorch {machine['torch']}")
    if "dtype" in run:
        parts.append(str(run["dtype"]).removeprefix("torch."))
    if run.get("ranks", 1) > 1:
        parts.append(f"{run['ranks']} ranks")
    return ", ".join(parts) or NOT_STATED


def _evaluation(path: Path) -> list[str]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        sizes = found["settings"]
        lines = [
            f"{found['measurement']}: {sizes['documents']} documents of {sizes['tokens']:,} tokens of {sizes['data']}, "
            f"{found['date']}; `{found['command']}`",
            "",
        ]
        if results := found.get("results"):
            lines += ["| nats per token | mean | after 4,096 |", "| --- | --- | --- |"]
            for name, one in results.items():
                late = one["mean_after_4096"]
                lines.append(f"| {name} | {one['mean']:.3f} | {'' if late is None else f'{late:.3f}'} |")
            lines.append("")
        if "by_distance" in found:
            heads, rows = recalled(found)
            lines += [_CODES, "", _row(heads), _row(["---"] * len(heads)), *map(_row, rows)]
        if reached := found.get("targets"):
            lines += ["| target | bar | measured | |", "| --- | --- | --- | --- |"]
            for one in reached:
                met = "met" if one["met"] else "**not met**"
                lines.append(f"| {one['what']} | {one['bar']} | {one['measured']} | {met} |")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidInputError(f"{path.name} is no result of `ttt_training.evaluate`.", why=repr(error)) from error
    return lines


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _count(value: int | None) -> str:
    return NOT_STATED if value is None else f"{value:,}"
