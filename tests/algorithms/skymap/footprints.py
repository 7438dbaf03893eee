"""Which patches footprints overlap, by clipping polygons at boxes: slow, and on its own."""

from __future__ import annotations

import numpy as np
from astropy.io import fits
from astropy.wcs import WCS
from numpy.typing import NDArray

from skyloom.algorithms.skymap import SkyMap, patch_boxes, tract_header

__all__ = ["clipped_area", "overlaps_by_clipping"]

Floats = NDArray[np.float64]


def clipped_area(polygon: list[tuple[float, float]], box: Floats) -> float:
    """Return the area of a convex polygon (x, y) in a box (low y, high y, low x, high x)."""
    for axis, limit, sign in ((1, box[0], 1), (1, box[1], -1), (0, box[2], 1), (0, box[3], -1)):
        kept: list[tuple[float, float]] = []
        for one, two in zip(polygon, polygon[1:] + polygon[:1], strict=True):
            inside, next_inside = (sign * (point[axis] - limit) > 0 for point in (one, two))
            if inside:
                kept.append(one)
            if inside != next_inside:
                part = (limit - one[axis]) / (two[axis] - one[axis])
                kept.append((one[0] + part * (two[0] - one[0]), one[1] + part * (two[1] - one[1])))
        polygon = kept
        if not polygon:
            return 0.0
    x, y = np.array(polygon).T
    return float(abs(np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))) / 2)


def overlaps_by_clipping(
    sky_map: SkyMap, ra: Floats, dec: Floats, tracts: list[int], *, least: float = 0.0
) -> set[tuple[int, int, int]]:
    """Return (polygon, tract, patch) that share more than some pixels, for some tracts.

    Corners must go round the polygon; pixels are those of astropy's WCS.
    """
    found = set()
    for index in tracts:
        tract = sky_map[index]
        wcs = WCS(fits.Header(tract_header(tract)))
        boxes = patch_boxes(tract) - 0.5
        for number in range(len(ra)):
            x, y = wcs.wcs_world2pix(ra[number], dec[number], 0)
            corners = list(zip(x.tolist(), y.tolist(), strict=True))
            near = (
                (boxes[:, 0] < y.max())
                & (boxes[:, 1] > y.min())
                & (boxes[:, 2] < x.max())
                & (boxes[:, 3] > x.min())
            )
            found |= {
                (number, index, int(patch))
                for patch in np.flatnonzero(near)
                if clipped_area(corners, boxes[patch]) > least
            }
    return found
