"""Public face of the dynamic SwiGLU: checks arguments, then calls one implementation."""

from __future__ import annotations

from torch import Tensor

from ttt_kernels import _checks
from ttt_kernels.swiglu.impl import reference

__all__ = ["swiglu"]



def _triton(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    from ttt_kernels.swiglu.impl import triton

    return triton.swiglu(x, gate_up, down)


_IMPLS = {"reference": reference.swiglu, "triton": _triton}


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor, *, impl: str = "auto") -> Tensor:
    """(silu(x gateᵀ) * (x upᵀ)) downᵀ for one sequence's weights.

    Args:
        x: [..., D].
        gate_up: [2F, D]: gate above up, so that one product serves both.
        down: [D, F].
        impl: "reference" (any order of derivative), "triton" (both orders), or "auto" (Triton on a CUDA device, else the
            reference).

    Returns:
        [..., D] in x's dtype.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit; the message names it.
    """
    chosen = _IMPLS[_checks.choose(impl, tuple(_IMPLS), _checks.auto(x))]
    _checks.floating("x", x)
    width = x.shape[-1]
    _checks.shape("gate_up", gate_up, ("2F", width))
    if gate_up.shape[0] % 2:
        raise ValueError(f"gate_up has shape {list(gate_up.shape)}, expected an even number of rows")
    _checks.shape("down", down, (width, gate_up.shape[0] // 2))
    _checks.same_kind("gate_up", gate_up, "x", x)
    _checks.same_kind("down", down, "x", x)
    return chosen(x, gate_up, down)
