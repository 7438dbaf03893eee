"""Raw pixels as the kernels read them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["floating", "native"]


def native(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return pixels in native byte order and C order, copied only if they are not.

    Examples
    --------
    >>> native(np.zeros((2, 2), ">u2")).dtype.isnative
    True
    """
    return np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))


def floating(values: NDArray[Any]) -> NDArray[Any]:
    """Return the values as native float32 if that holds them exactly, else as float64.

    Examples
    --------
    >>> floating(np.zeros(2, np.uint16)).dtype, floating(np.zeros(2, np.int32)).dtype
    (dtype('float32'), dtype('float64'))
    """
    small = values.dtype.itemsize <= (4 if values.dtype.kind == "f" else 2)
    return values.astype(np.float32 if small else np.float64, copy=False)
