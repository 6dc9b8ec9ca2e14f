"""Cross-entropy of a linear head over a large vocabulary."""

from ttt_kernels.cross_entropy.api import linear_cross_entropy

__all__ = ["linear_cross_entropy"]
