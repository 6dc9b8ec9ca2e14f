"""Public face of the dynamic SwiGLU: checks arguments, then calls one implementation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ttt_kernels import _checks
from ttt_kernels.swiglu.impl import many_reference, reference

__all__ = ["swiglu", "swiglu_many"]


def _triton(x: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    from ttt_kernels.swiglu.impl import triton

    return triton.swiglu(x, gate_up, down)


def _many_triton(x: Tensor, rows: Sequence[int], gate_up: Sequence[Tensor], down: Sequence[Tensor]) -> Tensor:
    from ttt_kernels.swiglu.impl import many_triton

    return many_triton.swiglu_many(x, rows, gate_up, down)


_IMPLS = {"reference": reference.swiglu, "triton": _triton}
_MANY = {"reference": many_reference.swiglu_many, "triton": _many_triton}


def swiglu(x: Tensor, gate_up: Tensor, down: Tensor, *, impl: str = "auto") -> Tensor:
    """(silu(x gateᵀ) * (x upᵀ)) downᵀ for one sequence's weights.

    Args:
        x: [..., D].
        gate_up: [2F, D]: gate above up, so that one product serves both.
        down: [D, F].
        impl: "reference" (any order of derivative), "triton" (both orders), or "auto" (Triton on a CUDA device,
            else the reference).

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


def swiglu_many(
    x: Tensor, rows: Sequence[int], gate_up: Sequence[Tensor], down: Sequence[Tensor], *, impl: str = "auto"
) -> Tensor:
    """`swiglu` of many tenants in one batch, each with weights of its own: the decode step.

    Args:
        x: [R, D], rows sorted by tenant.
        rows: how many of them belong to each tenant, in order; 0 is allowed. Known on the host, so nothing waits.
        gate_up: one [2F, D] per tenant. The tensors stay where they are: nothing is packed.
        down: one [D, F] per tenant.
        impl: "reference" (one tenant after another; differentiable), "triton" (one launch for all; no gradient; a
            tenant's rows are the same bits whoever else is in the batch), or "auto" (Triton on a CUDA device, else
            the reference).

    Returns:
        [R, D] in x's dtype.

    Raises:
        ValueError: an argument's shape, dtype, device or layout does not fit; the message names it.
    """
    chosen = _MANY[_checks.choose(impl, tuple(_MANY), _checks.auto(x))]
    _checks.floating("x", x)
    _checks.shape("x", x, ("R", "D"))
    if not len(rows) == len(gate_up) == len(down):
        raise ValueError(f"gate_up and down have {len(gate_up)} and {len(down)} tensors, expected {len(rows)} of each")
    if any(count < 0 for count in rows) or sum(rows) != len(x):
        raise ValueError(f"rows is {list(rows)}, expected counts from 0 that sum to the {len(x)} rows of x")
    width = x.shape[1]
    inner = down[0].shape[-1] if down else 0
    for index, (upper, lower) in enumerate(zip(gate_up, down, strict=True)):
        _checks.shape(f"gate_up[{index}]", upper, (2 * inner, width))
        _checks.shape(f"down[{index}]", lower, (width, inner))
        _checks.same_kind(f"gate_up[{index}]", upper, "x", x)
        _checks.same_kind(f"down[{index}]", lower, "x", x)
    return chosen(x, rows, gate_up, down)
