"""SwiGLU with explicit weights: the dynamic MLP of one sequence, or of many tenants in one batch."""

from ttt_kernels.swiglu.api import swiglu, swiglu_many

__all__ = ["swiglu", "swiglu_many"]
