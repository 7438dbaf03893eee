"""Where kernels are measured: the cells of an image, and the point-spread functions in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import Box, bin_centers, bin_count, bin_edges
from skyloom.algorithms.background.chebyshev import chebyshev_design, chebyshev_terms
from skyloom.algorithms.errors import GeometryError
from skyloom.algorithms.psf.linear_kernels import weighted_sums
from skyloom.algorithms.psf.points import Between, psf_factors
from skyloom.algorithms.psf.stamps import stamp_values

__all__ = ["Cells", "cells_of", "samples_of", "usable_order"]

Floats = NDArray[np.float64]


class Cells(NamedTuple):
    """Centres (x, y) of cells in parent pixels, and which distinct image each of them has.

    ``images`` (image, psf_y, psf_x) are normalised to 1; cell i has ``images[image[i]]``.
    """

    x: Floats
    y: Floats
    image: NDArray[np.int64]
    images: Floats


def cells_of(
    psf: xr.Dataset, box: Sequence[int], cell: int, between: Between = "nearest", least: int = 1
) -> Cells:
    """Return the cells that tile a box, each with the point-spread function at its centre.

    There are at least ``least`` of them along each axis that has so many pixels.

    Raises
    ------
    ValueError
        If the box is smaller than one pixel, or every point of the set is missing.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points
    >>> cells = cells_of(psf_at_points(gaussian_psf(3.0), 0, 0), (0, 256, 0, 384), 128)
    >>> cells.x.tolist(), len(cells.images)
    ([63.5, 191.5, 319.5, 63.5, 191.5, 319.5], 1)
    """
    limits = Box(*(int(edge) for edge in box))
    if min(limits.shape) < 1:
        raise GeometryError(f"box {tuple(limits)} is empty")
    y, x = (
        bin_centers(bin_edges(size, max(bin_count(size, cell), min(least, size))), start)
        for size, start in zip(limits.shape, (limits.y_start, limits.x_start), strict=True)
    )
    at_y, at_x = (values.ravel() for values in np.meshgrid(y, x, indexing="ij"))
    shares, points = psf_factors(psf, at_x, at_y, between)
    different, index = np.unique(shares, axis=0, return_inverse=True)
    values = np.nan_to_num(stamp_values(psf["psf"].transpose(v.POINT, ...)))
    images = weighted_sums(different, weighted_sums(points, values))
    return Cells(at_x, at_y, index.ravel(), images / images.sum((1, 2), keepdims=True))


def samples_of(psf: xr.Dataset, box: Sequence[int], cells: Cells) -> Cells:
    """Return the points of a set that lie in a box, each with its own image; the cells if none do.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points
    >>> psf = psf_at_points(np.stack([gaussian_psf(3.0)] * 2), [5, 900], [5, 5])
    >>> samples_of(psf, (0, 256, 0, 256), cells_of(psf, (0, 256, 0, 256), 128)).x.tolist()
    [5.0]
    """
    limits = Box(*(int(edge) for edge in box))
    values = stamp_values(psf["psf"].transpose(v.POINT, ...))
    x, y = (np.asarray(psf[name].values, np.float64) for name in ("x", "y"))
    inside = (x >= limits.x_start - 0.5) & (x <= limits.x_stop - 0.5)
    inside &= (y >= limits.y_start - 0.5) & (y <= limits.y_stop - 0.5)
    inside &= np.isfinite(values).all((1, 2))
    if not inside.any():
        return cells
    images = values[inside]
    images /= images.sum((1, 2), keepdims=True)
    return Cells(x[inside], y[inside], np.arange(len(images)), images)


def usable_order(cells: Cells, box: Sequence[int], order: int) -> int:
    """Return the highest order, up to one, that the cells determine; 0 where all are alike.

    Examples
    --------
    >>> from skyloom.algorithms.psf import gaussian_psf, psf_at_points
    >>> image = gaussian_psf(3.0).values
    >>> psf = psf_at_points(np.stack([image, image]), [0, 200], [0, 0])
    >>> box = (0, 256, 0, 256)
    >>> usable_order(cells_of(psf, box, 128), box, 2)
    1
    """
    if len(cells.images) == 1:
        return 0
    while order > 0:
        design = chebyshev_design(cells.x, cells.y, box, order)
        if np.linalg.matrix_rank(design) == len(chebyshev_terms(order)):
            return order
        order -= 1
    return 0
