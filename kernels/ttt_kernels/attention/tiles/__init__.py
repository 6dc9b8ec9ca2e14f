"""Triton kernels of the windowed attention, and the plain PyTorch statement of what they compute."""
