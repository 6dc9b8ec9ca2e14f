"""Files to documents. Plain text and Markdown so far; one module a format."""

from ttt_memory.loaders.text import load

__all__ = ["load"]
