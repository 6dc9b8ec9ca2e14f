"""`auto` and unknown names, for tensors of devices that need not be there."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from ttt_kernels import _checks
from ttt_kernels.attention import attention
from ttt_kernels.cross_entropy import linear_cross_entropy
from ttt_kernels.inner_update import inner_update
from ttt_kernels.swiglu import swiglu, swiglu_many


def test_auto_is_triton_on_a_cuda_device_and_the_reference_elsewhere() -> None:
    with FakeTensorMode():
        for dtype in (torch.bfloat16, torch.float16, torch.float32):
            assert _checks.auto(torch.empty(2, dtype=dtype, device="cuda")) == "triton"
            assert _checks.auto(torch.empty(2, dtype=dtype)) == "reference"
        assert _checks.auto(torch.empty(2, dtype=torch.float64, device="cuda")) == "reference"


@pytest.mark.parametrize("operation", [attention, linear_cross_entropy, swiglu, swiglu_many, inner_update])
def test_an_unknown_implementation_is_told_the_valid_ones(operation: object) -> None:
    x = torch.zeros(1, 1, 2, 4)
    arguments = {
        attention: (x, x, x),
        linear_cross_entropy: (torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(2, dtype=torch.int64)),
        swiglu: (torch.zeros(2, 3), torch.zeros(4, 3), torch.zeros(3, 2)),
        swiglu_many: (torch.zeros(2, 3), [2], [torch.zeros(4, 3)], [torch.zeros(3, 2)]),
        inner_update: ([torch.zeros(2)], [torch.zeros(2)], torch.ones(1)),
    }[operation]
    with pytest.raises(ValueError, match=r"unknown impl 'quick'; valid: 'auto', 'reference'.*'triton'"):
        operation(*arguments, impl="quick")  # type: ignore[operator]
