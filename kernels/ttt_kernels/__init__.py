"""Operations of TTT-E2E, one folder each: `api.py` validates and dispatches, `impl/reference.py` is the spec."""

from ttt_kernels._vector_maths import resolve as _resolve_vector_maths

_resolve_vector_maths()  # before the first operation of this process
