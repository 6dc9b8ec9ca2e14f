"""AdamW over named masters, with a state of plain tensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

RATES = "inner_rates"
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer:
    """AdamW. Matrices decay, vectors (norm scales, inner rates) do not; the inner rates have their own learning rate.

    Args:
        masters: by name; written in place by `step`.
        betas: of the moments.
        weight_decay: of matrices, per unit of learning rate.
    """

    def __init__(
        self, masters: Mapping[str, Tensor], *, betas: tuple[float, float] = (0.9, 0.95), weight_decay: float = 0.1
    ) -> None:
        self._masters = dict(masters)
        matrices = [t for name, t in self._masters.items() if t.ndim >= 2]
        vectors = [t for name, t in self._masters.items() if t.ndim < 2 and name != RATES]
        rates = [t for name, t in self._masters.items() if name == RATES]
        groups = [(matrices, weight_decay), (vectors, 0.0), (rates, 0.0)]
        self._adam = torch.optim.AdamW(
            [{"params": tensors, "weight_decay": decay} for tensors, decay in groups], lr=0.0, betas=betas, eps=1e-8
        )

    def step(self, grads: Mapping[str, Tensor], *, lr: float, rate_lr: float) -> None:
        """One step. Masters without a gradient stay as they are, decay included."""
        for group, rate in zip(self._adam.param_groups, (lr, lr, rate_lr), strict=True):
            group["lr"] = rate
        for name, master in self._masters.items():
            grad = grads.get(name)
            master.grad = None if grad is None else grad.to(master.dtype)
        self._adam.step()
        for master in self._masters.values():
            master.grad = None

    def state(self) -> dict[str, Tensor]:
        """Moments and step counts: `<name>/exp_avg`, `<name>/exp_avg_sq`, `<name>/step`."""
        named: dict[str, Tensor] = {}
        for name, master in self._masters.items():
            if entry := self._adam.state.get(master):
                named |= {f"{name}/{part}": entry[part] for part in (*_MOMENTS, "step")}
        return named

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Inverse of `state`. Raises KeyError where a moment is missing."""
        for name, master in self._masters.items():
            if f"{name}/step" in state:
                entry = {part: state[f"{name}/{part}"].to(master.device).clone() for part in _MOMENTS}
                self._adam.state[master] = entry | {"step": state[f"{name}/step"].clone()}


def global_norm(grads: Mapping[str, Tensor]) -> float:
    """Root of the sum of squares over all gradients."""
    return float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads.values()])))


def clip(grads: Mapping[str, Tensor], limit: float, norm: float | None = None) -> float:
    """Scales the gradients in place to a global norm of at most `limit` (0: no limit); gives the norm before.

    `norm` is given where the gradients are rows of larger ones.
    """
    norm = global_norm(grads) if norm is None else norm
    if limit and norm > limit:
        for grad in grads.values():
            grad.mul_(limit / norm)
    return norm
