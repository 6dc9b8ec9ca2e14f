"""Adapters for agent frameworks and servers. Not built yet: the core (`ttt_memory`) comes first."""
