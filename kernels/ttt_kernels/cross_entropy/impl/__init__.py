"""Implementations; they never import each other."""
