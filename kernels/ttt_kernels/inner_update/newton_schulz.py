"""Orthogonalisation of Muon-style writes, the same maths in every implementation."""

from __future__ import annotations

import torch
from torch import Tensor

_QUINTIC = (3.4445, -4.7750, 2.0315)
"""Coefficients of K. Jordan's Muon (2024): fast growth of small singular values, none above about 1.2."""

_ITERATIONS = 5


def orthogonalise(matrix: Tensor) -> Tensor:
    """Drives the singular values of [M, N] towards 1, scaled by sqrt(max(1, M/N)). Zero stays zero. Differentiable."""
    a, b, c = _QUINTIC
    rows, columns = matrix.shape
    x = matrix.T if rows > columns else matrix
    squares = x.square().sum()
    x = x / torch.sqrt(torch.where(squares > 0, squares, torch.ones_like(squares)))
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return torch.mul(x.T if rows > columns else x, max(1.0, rows / columns) ** 0.5)
