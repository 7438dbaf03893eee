"""The level that raw pixels saturate at, where nobody wrote it down, and saturated regions."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Box
from skyloom.algorithms.detrend.gap_kernels import find_plane, grow_plane
from skyloom.algorithms.detrend.level_kernels import count_equal, largest_in_box
from skyloom.algorithms.detrend.parameters import SaturationParameters
from skyloom.algorithms.pixel_arrays import native

__all__ = ["grow_saturation", "saturation_level"]

PILE_UP_PIXELS = 10  # fewer pixels at one value are an accident
PILE_UP_RATIO = 2.0  # the tail of a distribution falls, a pile-up rises


def saturation_level(pixels: NDArray[Any], box: Box | None = None) -> float:
    """Return the value that pixels pile up at, taken for saturation; infinity without a pile.

    The number of pixels falls towards the largest value of an unsaturated image. Where more than
    twice as many pixels hold the largest value as hold the next lower one, and at least ten,
    brighter pixels were cut off. The largest number of an unsigned integer dtype always counts.

    Parameters
    ----------
    pixels : ndarray, (y, x), any real dtype, adu
    box : Box, optional
        The part of the pixels to look at; all without it.

    Examples
    --------
    >>> import numpy as np
    >>> image = np.full((50, 50), 4000, np.uint16)
    >>> image[:5], image[5] = 4095, 4090
    >>> saturation_level(image)
    4095.0
    >>> saturation_level(np.arange(2500, dtype=np.uint16)[None])
    inf
    """
    values = native(pixels)
    box = box or Box(0, values.shape[0], 0, values.shape[1])
    if box.size == 0:
        return np.inf
    place = (box.y_start, box.x_start), box.shape
    kind, of = values.dtype.kind, values.dtype.type
    start = of(np.iinfo(values.dtype).min if kind in "iu" else -np.inf)
    top = values[box.slices].max()
    if not np.isfinite(top):
        top = of(largest_in_box(values, *place, of(np.inf), start))
    if kind == "u" and top == np.iinfo(values.dtype).max:
        return float(top)
    at_top = count_equal(values, *place, top)
    if at_top < PILE_UP_PIXELS:
        return np.inf
    second = of(largest_in_box(values, *place, top, start))
    below = count_equal(values, *place, second) if second < top else 0
    return float(top) if at_top > PILE_UP_RATIO * below else np.inf


def grow_saturation(mask: NDArray[np.int32], parameters: SaturationParameters) -> None:
    """Let SAT grow in a mask (y, x), in place, around saturated regions and along bleed trails.

    Examples
    --------
    >>> import numpy as np
    >>> mask = np.array([[0, 0, 2, 0, 0]], np.int32)
    >>> grow_saturation(mask, SaturationParameters(grow=1))
    >>> mask.tolist()
    [[0, 2, 2, 2, 0]]
    """
    if not (parameters.grow or parameters.bleed):
        return
    bit = v.MASK_PLANES["SAT"]
    found = np.empty(mask.shape, np.bool_)
    if find_plane(mask, bit, found):
        grow_plane(found, bit, parameters.grow, parameters.bleed, parameters.bleed_length, mask)
