"""What was to be reached (written down before the evaluation is run), and what a comparison measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from ttt_training.evaluate.bootstrap import paired
from ttt_training.evaluate.compare import BIN, EARLY

BELOW_WINDOW = 0.10
WORST_BIN = 0.01
BELOW_CONTROL = 0.04
NOT_FADING = 0.01
ABOVE_WINDOW = 0.01
READ_AGAIN = 0.3
HARM_OF_ANOTHER = 0.02
F1_LOST_BY_W0, F1_LOST_BY_READING = 2.0, 4.0
DRIFT = 0.02


@dataclass(frozen=True)
class Target:
    """One line: what, the bar, what was measured (nats; text for people), whether it was reached."""

    what: str
    bar: str
    measured: str
    met: bool

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able dictionary."""
        return asdict(self)


def targets(results: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    """The lines that these results can answer; none without `ttt`."""
    if "ttt" not in results:
        return []
    ttt, found = results["ttt"], []
    if "swa" in results:
        swa = results["swa"]
        if ttt["mean_after_4096"] is not None:
            gain = swa["mean_after_4096"] - ttt["mean_after_4096"]
            found.append(
                Target("swa - ttt after 4,096 tokens", f">= {BELOW_WINDOW}", f"{gain:.3f}", gain >= BELOW_WINDOW)
            )
        above = ttt["mean"] - swa["mean"]
        found.append(Target("ttt - swa", f"<= {ABOVE_WINDOW}", f"{above:.3f}", above <= ABOVE_WINDOW))
        worst = float(np.max(np.subtract(ttt["bins"], swa["bins"])))
        found.append(Target("ttt - swa, worst bin", f"<= {WORST_BIN}", f"{worst:.3f}", worst <= WORST_BIN))
    for name in ("control", "control4x", "control-naive"):
        if name in results and len(ttt["documents"]) > 1:
            interval = paired(_documents(results[name], "mean") - _documents(ttt, "mean"))
            shown = f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"
            found.append(Target(f"{name} - ttt, 95 % interval", "> 0", shown, interval.above_zero))
    if "control" in results:
        found.append(_gain(results["control"], ttt))
        if len(ttt["bins"]) * BIN > EARLY:
            found.append(_not_fading(results["control"], ttt))
    return found


def specificity_targets(intervals: Mapping[str, Mapping[str, Any]]) -> list[Target]:
    """What a memory gives to its own text, and what it costs another."""
    later, again, found = intervals["later"], intervals["again"], []
    for pair in ("w0 - own", "other - own"):
        low = later[pair]["low"]
        shown = f"{later[pair]['mean']:.3f} [{low:.3f}, {later[pair]['high']:.3f}]"
        found.append(Target(f"unseen, later: {pair}, 95 % interval", "> 0", shown, low > 0))
    gain, harm = again["w0 - own"]["mean"], max(part["other - w0"]["mean"] for part in (later, again))
    found.append(Target("read again: w0 - own", f">= {READ_AGAIN}", f"{gain:.3f}", gain >= READ_AGAIN))
    found.append(Target("other - w0, the larger", f"<= {HARM_OF_ANOTHER}", f"{harm:.3f}", harm <= HARM_OF_ANOTHER))
    return found


def answering_targets(f1: Mapping[str, float]) -> list[Target]:
    """Points of token F1 lost by W0 and by reading."""
    bars = {"w0": F1_LOST_BY_W0, "read": F1_LOST_BY_READING}
    lost = {name: f1["base"] - f1[name] for name in bars}
    return [
        Target(f"F1: base - {name}", f"<= {bar:g}", f"{lost[name]:.1f}", lost[name] <= bar)
        for name, bar in bars.items()
    ]


def drift_targets(stops: Sequence[Mapping[str, Any]]) -> list[Target]:
    """The rise on fresh text at each stop."""
    return [
        Target(
            f"rise after {stop['read']:,} tokens",
            f"<= {DRIFT}",
            f"{stop['rise']['mean']:.3f}",
            stop["rise"]["mean"] <= DRIFT,
        )
        for stop in stops[1:]
    ]


def _gain(control: Mapping[str, Any], ttt: Mapping[str, Any]) -> Target:
    gain = control["mean"] - ttt["mean"]
    return Target("control - ttt", f">= {BELOW_CONTROL}", f"{gain:.3f}", gain >= BELOW_CONTROL)


def _not_fading(control: Mapping[str, Any], ttt: Mapping[str, Any]) -> Target:
    """Memory grows or stays with what was read; domain fit would be there from the start."""
    gain = np.subtract(control["bins"], ttt["bins"])
    early, late = float(gain[1 : EARLY // BIN].mean()), float(gain[-(len(gain) // 4) :].mean())
    what = "gain over control: last quarter - tokens 1,024 to 4,096"
    return Target(what, f">= -{NOT_FADING}", f"{late - early:.3f}", late - early >= -NOT_FADING)


def _documents(result: Mapping[str, Any], measure: str) -> np.ndarray:
    return np.array([row[measure] for row in result["documents"]])
