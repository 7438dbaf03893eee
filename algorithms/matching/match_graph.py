"""Which visits overlap, and into which groups they fall apart."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

__all__ = ["connected_groups", "overlap_counts"]


def overlap_counts(covered: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of bins that each pair of visits shares, (visit, visit).

    Parameters
    ----------
    covered : ndarray, (bin, visit), bool

    Examples
    --------
    >>> overlap_counts(np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1]], bool)).tolist()
    [[1, 1, 0], [1, 2, 0], [0, 0, 1]]
    """
    visits = covered.shape[1]
    counts = np.zeros((visits, visits), np.int64)
    for start in range(0, len(covered), 1 << 20):  # float32 counts are exact below 2^24
        part = covered[start : start + (1 << 20)].astype(np.float32)
        counts += (part.T @ part).astype(np.int64)
    return counts


def connected_groups(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group of each visit, numbered by their first visit.

    Examples
    --------
    >>> connected_groups(np.array([[4, 0, 1], [0, 3, 0], [1, 0, 2]])).tolist()
    [0, 1, 0]
    """
    _, labels = connected_components(csr_array((counts > 0).astype(np.int8)), directed=False)
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first)).astype(np.int64)[inverse]
