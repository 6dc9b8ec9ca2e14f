"""SwiGLU with explicit weights: the dynamic MLP of one sequence."""

from ttt_kernels.swiglu.api import swiglu

__all__ = ["swiglu"]
