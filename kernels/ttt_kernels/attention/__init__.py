"""Causal sliding-window attention with GQA, a key/value prefix, attention sinks and RoPE applied on load."""

from ttt_kernels.attention.api import KeyValues, Rope, attention
from ttt_kernels.attention.rotation import rotate

__all__ = ["KeyValues", "Rope", "attention", "rotate"]
