"""`verify`: what is stored is what was written, and what is derived follows from it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from ttt_memory.errors import TTTMemoryError
from ttt_memory.lane import LEARN
from ttt_memory.model.fold import Step, score, segments
from ttt_memory.model.registry import check_weights
from ttt_memory.types import Finding, Progress, ProgressCallback, VerifyReport

if TYPE_CHECKING:
    from ttt_memory.handle import Handle
    from ttt_memory.model.state import FastWeights

PROBE = (
    "The ledger is the memory; everything else is derived from it. A reader who opens the book at any page finds the "
    "same words that were written there, in the same order, with the date beside them. What was learned from those "
    "words can be computed again at any time: first the opening sentence, then the next one, until the last line has "
    "been read. If two readers start from the same weights and read the same pages, they end in the same state."
)
"""Text on which states of different backends are compared."""
TOLERANCE = 0.005
"""Nats per token by which the loss on PROBE may differ between backends."""


def verify(handle: Handle, *, replay: bool, progress: ProgressCallback | None) -> VerifyReport:
    """Run every check; see `CompressedMemory.verify`."""
    checks = ["ledger", "notepad", "checkpoints", "weights", "model"]
    findings = [Finding(check=f.check, subject=f.subject, detail=f.detail) for f in handle.tenant.verify()]
    findings += [Finding(check=f.check, subject=f.subject, detail=f.detail) for f in handle.notepad.verify()]
    findings += _checkpoints(handle)
    findings += _base_model(handle)
    if not handle.published.weights.is_finite():
        findings.append(Finding(check="weights", subject="published", detail="not finite"))
    replayed: Literal["exact", "tolerance"] | None = None
    if replay:
        checks.append("replay")
        handle.learn(progress)
        replayed, found = _replay(handle, progress)
        findings += found
    return VerifyReport(
        ok=not findings,
        checks=tuple(checks),
        findings=tuple(findings),
        replayed=replayed,
        digest=handle.published.digest,
    )


def _checkpoints(handle: Handle) -> list[Finding]:
    found = []
    for row in handle.tenant.checkpoints():
        try:
            if handle.learner.decode_checkpoint(row).digest != row.digest:
                found.append(Finding(check="checkpoints", subject=row.id, detail="its weights have another digest"))
        except TTTMemoryError as error:
            found.append(Finding(check="checkpoints", subject=row.id, detail=str(error)))
    return found


def _base_model(handle: Handle) -> list[Finding]:
    pin = handle.tenant.head().model or {}
    try:
        check_weights(pin.get("spec", handle.model.name))
    except TTTMemoryError as error:
        return [Finding(check="model", subject=handle.model.name, detail=str(error))]
    return []


def _replay(handle: Handle, progress: ProgressCallback | None) -> tuple[Literal["exact", "tolerance"], list[Finding]]:
    published = handle.published
    done = 0

    def on_step(step: Step | None) -> None:
        nonlocal done
        if step and progress:
            done += step.tokens
            progress(Progress("replay", done, published.tokens, 0, step.loss))

    again = handle.learner.replay(published.through, on_step=on_step)
    if published.backend is None or dict(published.backend) == handle.learner.backend:
        digest = again.digest()
        if digest == published.digest:
            return "exact", []
        detail = f"published {published.digest}, folded again {digest}"
        return "exact", [Finding(check="replay", subject="weights", detail=detail)]
    difference = abs(_probe_loss(handle, published.weights) - _probe_loss(handle, again))
    if difference <= TOLERANCE:
        return "tolerance", []
    detail = f"loss on the probe text differs by {difference:.4f} nats"
    return "tolerance", [Finding(check="replay", subject="weights", detail=detail)]


def _probe_loss(handle: Handle, weights: FastWeights) -> float:
    tokens = handle.model.tokenizer.encode(PROBE)
    parts = [
        handle.learner.lane.run(score(handle.model, weights, segment), priority=LEARN)
        for segment in segments(tokens, tokens[:0], handle.model.config, append=False)
    ]
    return math.fsum(float(part.sum()) for part in parts) / len(tokens)
