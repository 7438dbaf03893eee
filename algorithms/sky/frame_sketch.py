"""Sky frames from exposures that come one by one: nothing is read again.

A *sketch* keeps, for each bin, weighted sums over exposures and a histogram of the residuals.
Sketches add up and can be taken off again, in any order. The weighted mean is exact; clipping is
as fine as the cells of the histogram. Where a frame of earlier exposures is known, give it as
``reference``: the histogram is then of differences to it, and a narrow range makes fine cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.sky.frame_kernels import add_to_histogram, clip_histograms
from skyloom.algorithms.sky.frame_parameters import AverageParameters, FrameSketchParameters
from skyloom.algorithms.sky.frames import BINS, finished_bins, stacked_residuals

__all__ = [
    "merge_sky_frame_sketches",
    "remove_from_sky_frame_sketch",
    "sky_frame_from_sketch",
    "sky_frame_sketch",
]

Floats = NDArray[np.float64]

SUMS = ("weight", "sum", "sum_squares", "count", "cell_count", "cell_weight", "cell_sum")


def sky_frame_sketch(
    residuals: xr.Dataset | Sequence[xr.Dataset],
    *,
    reference: xr.Dataset | None = None,
    parameters: FrameSketchParameters | None = None,
) -> xr.Dataset:
    """Return the sketch of the residuals of one or more exposures of one detector.

    Parameters
    ----------
    residuals : Dataset, (exposure, bin_y, bin_x), or sequence of Dataset, (bin_y, bin_x)
        ``level`` [1] and ``variance`` of `sky_frame_residual`. Bins without finite level or
        positive variance are left out.
    reference : Dataset, (bin_y, bin_x), optional
        Sky frame near to which residuals are expected; its finite bins count, else 0.
    parameters : FrameSketchParameters, optional

    Returns
    -------
    Dataset, (bin_y, bin_x)
        Float64 ``weight`` (sum of w = 1 / variance), ``sum`` (w x) and ``sum_squares`` (w x²) of
        differences x to the ``reference``, int32 ``count`` of exposures; along ``level_cell``
        int32 ``cell_count`` and float64 ``cell_weight`` and ``cell_sum`` (w and w x). Values beyond
        the range are in the outermost cells.

    Raises
    ------
    ConfigurationError, GeometryError
        As `average_backgrounds`.

    Examples
    --------
    >>> residual = xr.Dataset(
    ...     {
    ...         "level": (("bin_y", "bin_x"), [[0.01]]),
    ...         "variance": (("bin_y", "bin_x"), [[1e-6]]),
    ...     }
    ... )
    >>> sketch = sky_frame_sketch([residual, residual])
    >>> sketch["count"].item(), int(sketch["cell_count"].sum())
    (2, 2)
    """
    parameters = FrameSketchParameters() if parameters is None else parameters
    stack = stacked_residuals(residuals).transpose(v.EXPOSURE, *BINS)
    if "variance" not in stack:
        raise ConfigurationError("residuals need a variance to be weighted by")
    level = np.asarray(stack["level"].values, np.float64)
    variance = np.asarray(stack["variance"].values, np.float64)
    shape = level.shape[1:]
    origin = np.zeros(shape)
    if reference is not None:
        known = np.asarray(reference["level"].transpose(*BINS).values, np.float64)
        if known.shape != shape:
            raise GeometryError(f"the reference has {known.shape} bins, the residuals {shape}")
        origin = np.where(np.isfinite(known), known, 0.0)
    good = np.isfinite(level) & (variance > 0) & np.isfinite(variance)
    x = np.where(good, level - origin, 0.0)
    w = np.where(good, 1.0 / np.where(good, variance, 1.0), 0.0)
    cells = parameters.cells
    cell_count = np.zeros((cells, *shape), np.int32)
    cell_weight, cell_sum = np.zeros((cells, *shape)), np.zeros((cells, *shape))
    place = np.floor((x / parameters.half_range + 1.0) * (0.5 * cells))
    add_to_histogram(
        np.clip(place, 0, cells - 1).astype(np.int64), x, w, cell_count, cell_weight, cell_sum
    )
    cell_dims = (v.LEVEL_CELL, *BINS)
    arrays = {
        "weight": (BINS, w.sum(axis=0)),
        "sum": (BINS, (w * x).sum(axis=0)),
        "sum_squares": (BINS, (w * x * x).sum(axis=0)),
        "count": (BINS, good.sum(axis=0).astype(np.int32)),
        "cell_count": (cell_dims, cell_count),
        "cell_weight": (cell_dims, cell_weight),
        "cell_sum": (cell_dims, cell_sum),
        "reference": (BINS, origin),
    }
    sketch = xr.Dataset(
        {name: (dims, array, {"units": v.DIMENSIONLESS}) for name, (dims, array) in arrays.items()},
        coords={dim: stack[dim] for dim in BINS if dim in stack.coords},
        attrs={key: stack.attrs[key] for key in ("box", "grid_rule") if key in stack.attrs},
    )
    sketch.attrs["half_range"] = float(parameters.half_range)
    return sketch


def merge_sky_frame_sketches(sketches: Iterable[xr.Dataset]) -> xr.Dataset:
    """Add sketches of disjoint exposures.

    Raises
    ------
    ConfigurationError
        If there are none.
    GeometryError
        If bins, ranges or references differ.

    Examples
    --------
    >>> residual = xr.Dataset(
    ...     {
    ...         "level": (("bin_y", "bin_x"), [[0.01]]),
    ...         "variance": (("bin_y", "bin_x"), [[1e-6]]),
    ...     }
    ... )
    >>> one = sky_frame_sketch([residual])
    >>> merge_sky_frame_sketches([one, one, one])["count"].item()
    3
    """
    items = list(sketches)
    if not items:
        raise ConfigurationError("sketches is empty: there is nothing to merge")
    merged = items[0].copy(deep=True)
    for index, item in enumerate(items[1:], start=1):
        _check_alike(items[0], item, f"the sketch at position {index}")
        for name in SUMS:
            merged[name].values += item[name].values
    return merged


def remove_from_sky_frame_sketch(sketch: xr.Dataset, part: xr.Dataset) -> xr.Dataset:
    """Take exposures that are part of a sketch off it, given their own sketch.

    Raises
    ------
    GeometryError
        If bins, ranges or references differ.
    ValueError
        If the part holds exposures that the sketch does not.

    Examples
    --------
    >>> residual = xr.Dataset(
    ...     {
    ...         "level": (("bin_y", "bin_x"), [[0.01]]),
    ...         "variance": (("bin_y", "bin_x"), [[1e-6]]),
    ...     }
    ... )
    >>> one, two = sky_frame_sketch([residual]), sky_frame_sketch([residual, residual])
    >>> remove_from_sky_frame_sketch(two, one)["count"].item()
    1
    """
    _check_alike(sketch, part, "the part")
    if np.any(part["cell_count"].values > sketch["cell_count"].values):
        raise ValueError("part holds exposures that are not in the sketch")
    left = sketch.copy(deep=True)
    for name in SUMS:
        left[name].values -= part[name].values
    for cells, names in (
        ("count", ("weight", "sum", "sum_squares")),
        ("cell_count", ("cell_weight", "cell_sum")),
    ):
        for name in names:
            # where nothing is left, rounding shall not stay
            left[name].values[left[cells].values == 0] = 0.0
    return left


def sky_frame_from_sketch(
    sketch: xr.Dataset,
    *,
    clipped: bool = True,
    parameters: AverageParameters | None = None,
) -> xr.Dataset:
    """Return the sky frame of all exposures in a sketch.

    Parameters
    ----------
    sketch : Dataset
        See `sky_frame_sketch`.
    clipped : bool
        Clip as well as the histogram can; else the weighted mean of all, which is exact.
    parameters : AverageParameters, optional
        Clip, passes, minimum and filling; weights are those of the sketch.

    Returns
    -------
    Dataset, (bin_y, bin_x)
        As that of `average_backgrounds`.

    Examples
    --------
    >>> residual = xr.Dataset(
    ...     {
    ...         "level": (("bin_y", "bin_x"), [[0.01]]),
    ...         "variance": (("bin_y", "bin_x"), [[1e-6]]),
    ...     }
    ... )
    >>> frame = sky_frame_from_sketch(sky_frame_sketch([residual, residual]))
    >>> round(frame["level"].item(), 6), frame["exposure_count"].item()
    (0.01, 2)
    """
    parameters = AverageParameters() if parameters is None else parameters
    sums = {name: np.asarray(sketch[name].values) for name in SUMS}
    weight, first, second = (np.array(sums[name]) for name in ("weight", "sum", "sum_squares"))
    used = sums["count"].astype(np.float64)
    observed = used
    positive = weight > 0
    safe = np.where(positive, weight, 1.0)
    chi2 = np.where(positive, second - first**2 / safe, 0.0)
    if clipped:
        kept = np.empty((3, *observed.shape))
        cells = sums["cell_count"].shape[0]
        clip_histograms(
            sums["cell_count"],
            sums["cell_weight"],
            sums["cell_sum"],
            2.0 * float(sketch.attrs["half_range"]) / cells,
            parameters.clip,
            parameters.iterations,
            kept,
        )
        weight, first, used = kept
        positive = weight > 0
        safe = np.where(positive, weight, 1.0)
        # squares are known of all exposures alone: only bins where nothing was clipped tell
        chi2 = np.where(used == observed, chi2, np.nan)
    several = (used > 1) & np.isfinite(chi2)
    dof = float(np.sum(used[several] - 1.0))
    extra = max(float(np.sqrt(np.sum(chi2[several]) / dof)), 1.0) if dof > 0 else 1.0
    reference = np.asarray(sketch["reference"].values)
    level = np.where(positive, reference + first / safe, np.nan)
    variance = np.where(positive, extra**2 / safe, np.nan)
    level, flags = finished_bins(level, variance, used, parameters)
    plain = {"units": v.DIMENSIONLESS}
    frame = xr.Dataset(
        {
            "level": (BINS, level.astype(np.float32), plain),
            "variance": (BINS, variance.astype(np.float32), plain),
            "exposure_count": (BINS, used.astype(np.int16), plain),
            "clipped_count": (BINS, (observed - used).astype(np.int16), plain),
            "flags": (BINS, flags, v.flag_attributes(v.BinFlag)),
            "extra_scatter": ((), extra, plain),
        },
        coords=sketch.coords,
    )
    frame.attrs = {key: sketch.attrs[key] for key in ("box", "grid_rule") if key in sketch.attrs}
    frame.attrs |= {
        "statistic": "meanclip" if clipped else "mean",
        "weights": "inverse_variance",
        "clip": float(parameters.clip),
        "iterations": int(parameters.iterations),
        "fill": parameters.fill,
    }
    return frame


def _check_alike(first: xr.Dataset, other: xr.Dataset, what: str) -> None:
    """Raise GeometryError unless two sketches can be added."""
    checks: dict[str, tuple[Any, Any]] = {
        "bins or cells": (dict(first.sizes), dict(other.sizes)),
        "box": (list(first.attrs.get("box", [])), list(other.attrs.get("box", []))),
        "range": (first.attrs["half_range"], other.attrs["half_range"]),
    }
    for name, (one, two) in checks.items():
        if one != two:
            raise GeometryError(f"{what} has another {name} than the first: {two}, not {one}")
    if not np.array_equal(first["reference"].values, other["reference"].values):
        raise GeometryError(f"{what} was made with another reference than the first")
