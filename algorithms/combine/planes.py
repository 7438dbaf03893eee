"""Mask planes by skyloom's own legend, whatever that of a mask is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.stack_arrays import as_bits

__all__ = ["own_planes"]


def own_planes(mask: NDArray[Any], legend: Mapping[str, Any]) -> NDArray[np.int32]:
    """Return planes by skyloom's own legend; those it does not know are left out.

    Examples
    --------
    >>> own_planes(np.array([0, 4]), {"flag_masks": [4], "flag_meanings": "SAT"}).tolist()
    [0, 2]
    """
    mask = mask.astype(np.int32, copy=False)
    known = {name: v.plane_bits([name], legend) for name in str(legend["flag_meanings"]).split()}
    if known == dict(v.MASK_PLANES):
        return mask.copy()
    own = np.zeros_like(mask)
    for name in known.keys() & v.MASK_PLANES.keys():
        own[(mask & as_bits(known[name])[0]) != 0] |= v.MASK_PLANES[name]
    return own
