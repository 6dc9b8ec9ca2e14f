"""Operations of TTT-E2E, one folder each: `api.py` validates and dispatches, `impl/reference.py` is the spec."""
