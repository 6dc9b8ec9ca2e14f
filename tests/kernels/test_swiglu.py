from __future__ import annotations

import pytest
import torch
from ttt_kernels.swiglu import swiglu


def test_the_definition_and_its_derivatives() -> None:
    torch.manual_seed(0)
    x, gate_up, down = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((5, 3), (8, 3), (3, 4)))
    gate, up = x @ gate_up[:4].T, x @ gate_up[4:].T
    assert torch.allclose(swiglu(x, gate_up, down), (gate * torch.sigmoid(gate) * up) @ down.T, atol=1e-12)
    assert torch.autograd.gradcheck(swiglu, (x, gate_up, down))
    assert torch.autograd.gradgradcheck(swiglu, (x, gate_up, down))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"impl": "x"}, "unknown impl 'x'; valid: 'auto', 'reference'"),
        ({"gate_up": torch.zeros(8, 4)}, "gate_up has shape"),
        ({"gate_up": torch.zeros(7, 3)}, "gate_up has shape"),
        ({"down": torch.zeros(3, 5)}, "down has shape"),
        ({"down": torch.zeros(3, 4).double()}, "down is torch.float64"),
        ({"x": torch.zeros(5, 3, dtype=torch.int64)}, "x has dtype"),
    ],
)
def test_a_bad_argument_is_named(change: dict, message: str) -> None:
    good = {"x": torch.zeros(5, 3), "gate_up": torch.zeros(8, 3), "down": torch.zeros(3, 4)}
    with pytest.raises(ValueError, match=message):
        swiglu(**{**good, **change})
