"""Where detectors are in the focal plane, as regressors of the illumination of an exposure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import GeometryError

__all__ = ["TERMS", "Geometry", "gradient_terms"]

TERMS = ("x", "y", "r2")
TERMS_OF_ORDER = {0: 0, 1: 2, 2: 3}


class Geometry(NamedTuple):
    """Regressors (channel, term), the first of them 1; of the others the mean is 0.

    They are relative to the centre, and to the radius of the outermost channel.
    """

    terms: NDArray[np.float64]
    centre: tuple[float, float]
    radius: float


def gradient_terms(level: xr.DataArray, order: int) -> Geometry:
    """Return the regressors of the channels of a table of levels.

    Parameters
    ----------
    level : DataArray, (exposure, detector) or (exposure, detector, amp)
        With coordinates ``focal_x`` and ``focal_y``, mm, over the channels, if order > 0.
    order : {0, 1, 2}
        0: a constant; 1: and a plane; 2: and a parabola.

    Raises
    ------
    GeometryError
        If coordinates are missing or not finite, or do not determine the terms.

    Examples
    --------
    >>> level = xr.DataArray(np.ones((1, 3)), dims=("exposure", "detector"))
    >>> level = level.assign_coords(focal_x=("detector", [0.0, 10.0, -10.0]))
    >>> level = level.assign_coords(focal_y=("detector", [5.0, 0.0, -5.0]))
    >>> gradient_terms(level, 1).terms.round(3).tolist()
    [[1.0, 0.0, 0.447], [1.0, 0.894, 0.0], [1.0, -0.894, -0.447]]
    """
    dims = [name for name in level.dims if name != v.EXPOSURE]
    if set(dims) == {v.DETECTOR, v.AMP}:
        dims = [v.DETECTOR, v.AMP]
    channels = int(np.prod([level.sizes[name] for name in dims]))
    if order == 0:
        return Geometry(np.ones((channels, 1)), (0.0, 0.0), 1.0)
    missing = [name for name in (v.FOCAL_X, v.FOCAL_Y) if name not in level.coords]
    if missing:
        raise GeometryError(
            f"gradients need the coordinates {v.FOCAL_X} and {v.FOCAL_Y} of the detectors, in mm; "
            f"level lacks {', '.join(missing)}"
        )
    frame = level.isel({v.EXPOSURE: 0}, drop=True)
    x, y = (
        level[name].broadcast_like(frame).transpose(*dims).values.astype(np.float64).ravel()
        for name in (v.FOCAL_X, v.FOCAL_Y)
    )
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise GeometryError("positions of detectors must be finite")
    centre = float(x.mean()), float(y.mean())
    x, y = x - centre[0], y - centre[1]
    radius = float(np.sqrt(x**2 + y**2).max()) or 1.0
    parts = [x / radius, y / radius, (x**2 + y**2) / radius**2][: TERMS_OF_ORDER[order]]
    terms = np.column_stack([np.ones(channels), *(part - part.mean() for part in parts)])
    if np.linalg.matrix_rank(terms) < terms.shape[1]:
        raise GeometryError(
            f"{channels} positions do not determine the {terms.shape[1]} terms of a gradient of "
            f"order {order}"
        )
    return Geometry(terms, centre, radius)
