"""Learning rates by step."""

from __future__ import annotations

import math


def warm_up_cosine(step: int, *, steps: int, warm_up: int, peak: float, floor: float) -> float:
    """Learning rate of outer step 0, 1, ...: linear to `peak` over `warm_up` steps, then a cosine to `floor`.

    Step 0 has already moved one step up, and the last step is one short of the floor.
    """
    if step < warm_up:
        return peak * (step + 1) / warm_up
    done = (step - warm_up) / max(1, steps - warm_up)
    return floor + (peak - floor) * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))


def inner_rate_scale(step: int, *, steps: int, start: float) -> float:
    """Factor of the learned inner rates at an outer step: from `start` to 1 over `steps` outer steps.

    Step 0 has already moved one step; 0 steps is no warm-up (shared semantics with the reference implementation).
    """
    return start + (1 - start) * min(1.0, (step + 1) / steps) if steps else 1.0
