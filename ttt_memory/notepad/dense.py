"""Nearest passages by meaning: an exact inner-product index in FAISS."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]
Vectors = NDArray[np.float32]


@functools.cache
def _faiss() -> Any:
    import faiss

    faiss.omp_set_num_threads(1)  # a second pool of threads beside torch's costs more than it gives
    return faiss


class DenseIndex:
    """Unit vectors by passage id. Searching from several threads is safe; changing it meanwhile is not."""

    def __init__(self, dimensions: int) -> None:
        faiss = _faiss()
        self._index = faiss.IndexIDMap2(faiss.IndexFlatIP(dimensions))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    def add(self, ids: Ids, vectors: NDArray[np.floating[Any]]) -> None:
        """Add vectors [N, D] under ids [N] that the index does not hold yet."""
        if len(ids):
            self._index.add_with_ids(np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(ids, np.int64))

    def remove(self, ids: Ids) -> None:
        """Remove what is held of `ids`."""
        self._index.remove_ids(np.ascontiguousarray(ids, np.int64))

    def nearest(self, vector: Vectors, count: int, among: Ids | None = None) -> tuple[Ids, NDArray[np.float64]]:
        """Return ids and cosine similarities of at most `count` nearest vectors, best first, of `among` if given."""
        faiss = _faiss()
        params = None
        if among is not None:
            selector = faiss.IDSelectorBatch(np.ascontiguousarray(among, np.int64))
            params = faiss.SearchParameters(sel=selector)
        count = min(count, len(self) if among is None else len(among))
        if not count:
            return np.empty(0, np.int64), np.empty(0)
        scores, ids = self._index.search(np.ascontiguousarray(vector[None], np.float32), count, params=params)
        held = ids[0] >= 0
        return ids[0][held], scores[0][held].astype(np.float64)

    def vectors(self, ids: Ids) -> Vectors:
        """Return the vectors [N, D] stored under `ids`."""
        if not len(ids):
            return np.empty((0, self._index.d), np.float32)
        return np.asarray(self._index.reconstruct_batch(np.ascontiguousarray(ids, np.int64)))
