"""Meta-learning of the initial fast weights: outer loop, data, recipes, evaluation."""
