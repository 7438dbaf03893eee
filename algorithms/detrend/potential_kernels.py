"""One iteration of the brighter-fatter correction, in one pass over the image.

The potential of a row is summed tap by tap from a ring of rows with mirrored margins; it is needed
for two rows at a time only, so neither potential nor flow of the whole image is ever stored. Sums
have one order, and loops are simple enough to become vectors.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.compiled import compiled

__all__: list[str] = []  # kernels for the modules of this room

Floats = NDArray[np.float64]

HALF: Final = 0.5
"""On average, charge feels half of the charge that is there at the end of the exposure."""
MEAN: Final = 0.5
BLOCK: Final = 512  # pixels of a row whose sums stay in the first cache
TAPS: Final = 4  # taken at a time, to store sums less often


@compiled
def add_taps(row: Floats, taps: Floats, out: Floats) -> None:
    """Add to each of ``out`` the sum of ``taps`` times the pixels of a row from there on."""
    size = out.size
    whole = taps.size // TAPS * TAPS
    for tap in range(0, whole, TAPS):
        first, second = row[tap : tap + size], row[tap + 1 : tap + 1 + size]
        third, fourth = row[tap + 2 : tap + 2 + size], row[tap + 3 : tap + 3 + size]
        a, b, c, d = taps[tap], taps[tap + 1], taps[tap + 2], taps[tap + 3]
        for x in range(size):
            out[x] += (a * first[x] + b * second[x]) + (c * third[x] + d * fourth[x])
    for tap in range(whole, taps.size):
        only, weight = row[tap : tap + size], taps[tap]
        for x in range(size):
            out[x] += weight * only[x]


@compiled
def mirrored(index: int, size: int) -> int:
    """Return the index of the pixel that stands for one beyond the border."""
    if index < 0:
        return -1 - index
    return 2 * size - 1 - index if index >= size else index


@compiled
def load_margins(values: Floats, radius: int, padded: Floats) -> None:
    """Copy a row between margins that mirror it."""
    size = values.size
    padded[radius : radius + size] = values
    for x in range(radius):
        padded[radius - 1 - x] = values[x]
        padded[radius + size + x] = values[size - 1 - x]


@compiled
def potential_row(ring: Floats, y: int, taps: Floats, potential: Floats) -> None:
    """Write the potential of a row from the ring of rows about it; ``taps`` run backwards."""
    potential[:] = 0.0
    radius = taps.shape[0] // 2
    rows = ring.shape[0]
    for start in range(0, potential.size, BLOCK):
        stop = min(start + BLOCK, potential.size)
        for tap in range(taps.shape[0]):
            row = ring[(y - radius + tap + rows) % rows, start : stop + taps.shape[1] - 1]
            add_taps(row, taps[tap], potential[start:stop])


@compiled
def iterate(
    observed: Floats,
    values: Floats,
    good: NDArray[np.bool_],
    taps: Floats,
    corrected: Floats,
) -> float:
    """Write observed + 1/2 div(values grad(K conv values)), and return the mean absolute change.

    ``taps`` is the kernel turned by half a circle. No charge flows through the border of the
    image or of pixels that are not good.
    """
    height, width = values.shape
    radius_y, radius_x = taps.shape[0] // 2, taps.shape[1] // 2
    rows = taps.shape[0]
    ring = np.empty((rows, width + 2 * radius_x), np.float64)
    for y in range(-radius_y, radius_y):
        load_margins(values[mirrored(y, height)], radius_x, ring[(y + rows) % rows])
    here, below = np.empty(width, np.float64), np.empty(width, np.float64)
    through = np.zeros(width, np.float64)
    total = 0.0
    for y in range(height):
        ahead = mirrored(y + radius_y, height)
        load_margins(values[ahead], radius_x, ring[(y + radius_y) % rows])
        potential_row(ring, y, taps, here)
        own, out, open_ = values[y], corrected[y], good[y]
        out[:] = observed[y]
        for x in range(width - 1):
            flow = HALF * MEAN * (own[x + 1] + own[x]) * (here[x + 1] - here[x])
            through[x] = flow if open_[x] & open_[x + 1] else 0.0
        for x in range(width - 1):
            out[x] += through[x]
        for x in range(width - 1):
            out[x + 1] -= through[x]
        if y > 0:
            previous, before, was_open = corrected[y - 1], values[y - 1], good[y - 1]
            for x in range(width):
                flow = HALF * MEAN * (own[x] + before[x]) * (here[x] - below[x])
                through[x] = flow if open_[x] & was_open[x] else 0.0
            for x in range(width):
                previous[x] += through[x]
            for x in range(width):
                out[x] -= through[x]
            total += row_change(previous, before)
        below[:] = here
    total += row_change(corrected[height - 1], values[height - 1])
    return float(total / (height * width))


@compiled
def row_change(new: Floats, old: Floats) -> float:
    """Return the sum of absolute differences of two rows."""
    total = 0.0
    for x in range(new.size):
        total += abs(new[x] - old[x])
    return total
