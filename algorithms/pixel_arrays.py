"""Raw pixels as the kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["native"]


def native(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels in native byte order and C order, copied only if they are not.

    Examples
    --------
    >>> native(np.zeros((2, 2), ">u2")).dtype.isnative
    True
    """
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
