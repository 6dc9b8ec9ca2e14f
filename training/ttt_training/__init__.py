"""Meta-learning of the initial fast weights. Not built yet: the core (`ttt_memory`) comes first."""
