"""What visits show of planes, by shifts of images, and what they lack of them, shifted back."""

from __future__ import annotations

from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = [
    "Geometry",
    "amplified",
    "backshift_residual",
    "count_and_weight_planes",
    "predict_visit",
    "update_model",
]

Images = NDArray[np.float32]
Floats = NDArray[np.float64]


Order: TypeAlias = Literal[1, 3, 5]


class Geometry(NamedTuple):
    """Shifts (dy, dx; pixel): ``split`` (visit, subfilter, half, 2) and ``mean`` (visit,
    subfilter, 2), and the order of the splines that make them."""

    split: Floats
    mean: Floats
    order: Order


def _prepared(image: Images, order: Order) -> Images:
    """Return what is shifted: coefficients of splines, computed once for all shifts."""
    if order == 1:
        return image
    found = ndimage.spline_filter(image, order, output=np.dtype(np.float32), mode="grid-constant")
    return np.asarray(found, np.float32)


def _shifted(prepared: Images, shift: Floats, order: Order) -> Images:
    way = (float(shift[0]), float(shift[1]))
    found = ndimage.shift(prepared, way, None, order, mode="grid-constant", prefilter=False)
    return np.asarray(found, np.float32)


def amplified(planes: Images, factor: float) -> Images:
    """Return planes whose differences from their mean are amplified."""
    mean = planes.mean(axis=0, dtype=np.float64).astype(np.float32)
    return np.asarray(mean + np.float32(factor) * (planes - mean), np.float32)


def predict_visit(prepared: list[Images], geometry: Geometry, visit: int) -> Images:
    """Return what a visit shows of planes.

    Parameters
    ----------
    prepared : list of arrays, (y, x)
        Coefficients of the amplified planes.
    geometry : Geometry
    visit : int
    """
    total = np.zeros_like(prepared[0])
    for plane, (one, other) in zip(prepared, geometry.split[visit], strict=True):
        if np.array_equal(one, other):
            total += _shifted(plane, one, geometry.order)
        else:
            half = _shifted(plane, one, geometry.order) + _shifted(plane, other, geometry.order)
            total += np.float32(0.5) * half
    return total


def count_and_weight_planes(weights: Images, geometry: Geometry) -> tuple[Images, Images]:
    """Return how many visits, and what weights, reach each pixel of each plane.

    Parameters
    ----------
    weights : array, (visit, y, x)
        0 where a pixel is bad.
    geometry : Geometry

    Returns
    -------
    counts : ndarray, (subfilter, y, x), float32
        Visits, shifted back as residuals are.
    norms : ndarray, (subfilter, y, x), float32
        One over the sum of weights; 0 where not more than one visit is there in every plane.
    """
    shape = (geometry.mean.shape[1], *weights.shape[1:])
    counts, sums = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for visit, plane in enumerate(weights):
        good = _prepared((plane > 0).astype(np.float32), geometry.order)
        own = _prepared(plane, geometry.order)
        for subfilter, shift in enumerate(geometry.mean[visit]):
            # Splines overshoot where a bad region ends.
            counts[subfilter] += np.clip(_shifted(good, -shift, geometry.order), 0.0, 1.0)
            sums[subfilter] += np.maximum(_shifted(own, -shift, geometry.order), 0.0)
    usable = (counts > 1.0 + 1e-3).all(axis=0) & (sums > 0).all(axis=0)
    norms = np.divide(np.float32(1.0), sums, out=np.zeros_like(sums), where=usable)
    return counts * usable, norms


def backshift_residual(residual: Images, geometry: Geometry, visit: int, into: Images) -> None:
    """Add the residual of a visit, shifted back for each sub-band, to planes."""
    prepared = _prepared(residual, geometry.order)
    for subfilter, shift in enumerate(geometry.mean[visit]):
        into[subfilter] += _shifted(prepared, -shift, geometry.order)


def update_model(planes: Images, residual: Images, norms: Images) -> Images:
    """Return planes plus the mean residual; as they are where that is not finite."""
    new = planes + norms * residual
    return np.where(np.isfinite(new), new, planes).astype(np.float32)


def prepared_planes(planes: Images, factor: float, order: Order) -> list[Images]:
    """Return the coefficients of amplified planes."""
    return [_prepared(plane, order) for plane in amplified(planes, factor)]
