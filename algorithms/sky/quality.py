"""How even a sky subtraction leaves the sky."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background.geometry import (
    bin_centers,
    bin_edges,
    box_of_background,
)
from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.focal_plane import to_focal_plane

__all__ = ["boundary_steps", "sky_quality"]

Floats = NDArray[np.float64]


def boundary_steps(
    backgrounds: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    *,
    reach: float = 4.0,
) -> xr.Dataset:
    """Return the differences of facing bins at the borders of neighbouring detectors.

    Parameters
    ----------
    backgrounds : mapping from detector to Dataset, (bin_y, bin_x)
        ``level`` and ``variance``; attribute ``box``.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    reach : float
        Largest distance of the centres of two facing bins, in bins.

    Returns
    -------
    Dataset, (pair,)
        ``step`` and its ``sigma`` in the units of the level. Two bins face each other if each is
        the nearest of the other detector to the other; a bin has one such pair a detector.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> flat = xr.Dataset(
    ...     {"level": (dims, np.ones((2, 2))), "variance": (dims, np.full((2, 2), 0.02))},
    ...     attrs={"box": [0, 8, 0, 8]},
    ... )
    >>> transforms = {i: np.array([[1.0, 0.0, 8.0 * i], [0.0, 1.0, 0.0]]) for i in range(2)}
    >>> steps = boundary_steps({0: flat, 1: flat.assign(level=flat["level"] + 3)}, transforms)
    >>> steps["step"].values, steps["sigma"].values
    (array([3., 3.]), array([0.2, 0.2]))
    """
    borders = [_bins(backgrounds[name], transforms[name], border=True) for name in backgrounds]
    steps, sigmas = [np.empty(0)], [np.empty(0)]
    for index, (places, level, variance, size) in enumerate(borders):
        for others, other_level, other_variance, other_size in borders[index + 1 :]:
            if not (len(places) and len(others)):
                continue
            distance, nearest = (np.asarray(found) for found in cKDTree(others).query(places))
            back = np.asarray(cKDTree(places).query(others)[1])
            facing = back[nearest] == np.arange(len(places))
            facing &= distance <= reach * max(size, other_size)
            steps.append((other_level[nearest] - level)[facing])
            sigmas.append(np.sqrt(other_variance[nearest] + variance)[facing])
    units = {"units": _units(backgrounds)}
    return xr.Dataset(
        {
            "step": (v.PAIR, np.concatenate(steps), units),
            "sigma": (v.PAIR, np.concatenate(sigmas), units),
        }
    )


def _units(backgrounds: Mapping[Any, xr.Dataset]) -> str:
    return next((str(b["level"].attrs.get("units", "")) for b in backgrounds.values()), "")


def sky_quality(
    backgrounds: Mapping[Any, xr.Dataset],
    transforms: Mapping[Any, Floats],
    *,
    fit: xr.Dataset | None = None,
    level: float | None = None,
    scale_length: float | None = None,
    reach: float = 4.0,
) -> xr.Dataset:
    """Return how even the sky of one exposure is, from the bins of its detectors.

    Call it before and after a subtraction: a good one lowers every figure to its noise.

    Parameters
    ----------
    backgrounds : mapping from detector to Dataset, (bin_y, bin_x)
        ``level`` and ``variance``, ``count``; attribute ``box``.
    transforms : mapping from detector to array, (2, 3), mm
        Take pixels (x, y, 1) to the focal plane.
    fit : Dataset, optional
        Of `solve_scales`: its scale is compared with the level.
    level : float, optional
        Sky level, units of the image.
    scale_length : float, mm, optional
        Side of the squares whose means tell structure of large scale; by default that of four
        bins.
    reach : float
        As in `boundary_steps`.

    Returns
    -------
    Dataset
        ``boundary_rms`` of the steps between detectors and ``boundary_noise``, which noise alone
        would give; ``detector_rms`` of the mean levels of detectors; ``large_scale_rms`` of the
        means of squares; ``bin_rms`` of the bins [units of the level]; ``masked_fraction`` of the
        pixels; ``scale_to_level``, which should be near 1; ``detector_mean`` (detector).

    Raises
    ------
    NoUsableDataError
        If no bin has a value.

    Examples
    --------
    >>> dims = ("bin_y", "bin_x")
    >>> flat = xr.Dataset(
    ...     {
    ...         "level": (dims, np.ones((2, 2))),
    ...         "variance": (dims, np.full((2, 2), 0.02)),
    ...         "count": (dims, np.full((2, 2), 12)),
    ...     },
    ...     attrs={"box": [0, 8, 0, 8]},
    ... )
    >>> quality = sky_quality({7: flat}, {7: np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])})
    >>> float(quality["bin_rms"]), float(quality["masked_fraction"])
    (0.0, 0.25)
    """
    names = [name for name in backgrounds if name in transforms]
    x, y, levels, weights, owners = (np.empty(0) for _ in range(5))
    means, pixels, valid, side = [], 0, 0, 0.0
    for index, name in enumerate(names):
        places, values, variance, size = _bins(backgrounds[name], transforms[name])
        x, y = np.append(x, places[:, 0]), np.append(y, places[:, 1])
        levels, weights = np.append(levels, values), np.append(weights, 1.0 / variance)
        owners = np.append(owners, np.full(len(values), index))
        means.append(_weighted_mean(values, 1.0 / variance))
        box = box_of_background(backgrounds[name])
        pixels += box.shape[0] * box.shape[1]
        if "count" in backgrounds[name]:
            valid += int(backgrounds[name]["count"].sum())
        side = max(side, size)
    if not len(levels):
        raise NoUsableDataError("no bin of any detector has a value and a variance")
    square = 4.0 * side if scale_length is None else scale_length
    columns = np.floor((x - x.min()) / square).astype(np.int64)
    rows = np.floor((y - y.min()) / square).astype(np.int64)
    _, cell = np.unique(rows * (columns.max() + 1) + columns, return_inverse=True)
    total = np.bincount(cell, weights).astype(np.float64)
    averages = np.bincount(cell, weights * levels) / total
    steps = boundary_steps({name: backgrounds[name] for name in names}, transforms, reach=reach)
    units = {"units": _units(backgrounds)}
    scale = np.nan if fit is None or not level else float(fit["scale"]) / level
    return xr.Dataset(
        {
            "boundary_rms": ((), _rms(steps["step"].to_numpy()), units),
            "boundary_noise": ((), _rms(steps["sigma"].to_numpy()), units),
            "detector_rms": ((), float(np.nanstd(means)), units),
            "large_scale_rms": ((), _scatter(averages, total), units),
            "bin_rms": ((), _scatter(levels, weights), units),
            "masked_fraction": ((), 1.0 - valid / pixels, {"units": ""}),
            "scale_to_level": ((), scale, {"units": ""}),
            "detector_mean": (v.DETECTOR, np.array(means), units),
        },
        coords={v.DETECTOR: names},
    )


def _bins(
    background: xr.Dataset, transform: Floats, *, border: bool = False
) -> tuple[Floats, Floats, Floats, float]:
    """Return positions, levels and variances of all bins that have both, and a bin's size."""
    box = box_of_background(background)
    level = np.asarray(background["level"].transpose(v.BIN_Y, v.BIN_X), np.float64)
    variance = np.asarray(background["variance"].transpose(v.BIN_Y, v.BIN_X), np.float64)
    edges = [bin_edges(size, n) for size, n in zip(box.shape, level.shape, strict=True)]
    y, x = np.meshgrid(
        bin_centers(edges[0], box.y_start), bin_centers(edges[1], box.x_start), indexing="ij"
    )
    good = np.isfinite(level) & np.isfinite(variance) & (variance > 0)
    if border:
        good[1:-1, 1:-1] = False
    places = np.column_stack(to_focal_plane(transform, x[good], y[good]))
    pixel = np.sqrt(abs(np.linalg.det(np.asarray(transform)[:, :2])))
    size = float(pixel * max(np.diff(edges[0]).max(), np.diff(edges[1]).max()))
    return places, level[good], variance[good], size


def _weighted_mean(values: Floats, weight: Floats) -> float:
    total = float(weight.sum())
    return float((weight * values).sum()) / total if total > 0 else np.nan


def _scatter(values: Floats, weight: Floats) -> float:
    """Return the weighted standard deviation."""
    mean = _weighted_mean(values, weight)
    return float(np.sqrt(max(_weighted_mean((values - mean) ** 2, weight), 0.0)))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(values**2))) if len(values) else np.nan
