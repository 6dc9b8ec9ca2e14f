"""The TTT-E2E Transformer: base weights, fast weights, the fold, generation."""
