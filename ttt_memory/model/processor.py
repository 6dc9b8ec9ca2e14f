"""What the processor can do: it decides the dtype, and the last bits of every result."""

from __future__ import annotations

import torch


def instruction_set() -> str:
    """The instructions that PyTorch's kernels use here, such as `AVX512+AMX`: other ones, other last bits."""
    return torch.backends.cpu.get_cpu_capability() + ("+AMX" if _has("_is_amx_tile_supported") else "")


def multiplies_bf16() -> bool:
    """Whether the processor multiplies bf16 natively (AVX-512 BF16 or AMX): else fp32 is faster."""
    return _has("_is_avx512_bf16_supported") or _has("_is_amx_tile_supported")


def _has(probe: str) -> bool:
    """torch names these probes privately; a release without one is one without the fast path."""
    supported = getattr(torch.cpu, probe, None)
    return bool(supported is not None and supported())
