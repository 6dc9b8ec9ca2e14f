"""Adapters for agent frameworks and servers, over the public API of `ttt_memory` alone; each an extra."""
