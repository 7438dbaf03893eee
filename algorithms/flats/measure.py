"""The level of a flat in each amplifier and in the whole detector."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import Box, amplifier_rows
from skyloom.algorithms.clip_correction import unclipped_variance
from skyloom.algorithms.flats.parameters import FlatStatisticsParameters
from skyloom.algorithms.flats.polygon import inside_polygon
from skyloom.algorithms.statistics import clipped_moments

__all__ = ["measure_flat", "reference_keys"]

STATISTIC = "statistic"
COLUMNS = ("mean", "median", "sigma", "clipped_sigma", "clip_limit", "count", "count_used")
COUNTS = ("count", "count_used")


def measure_flat(
    exposure: xr.Dataset,
    amplifiers: xr.Dataset,
    *,
    polygon: ArrayLike | None = None,
    parameters: FlatStatisticsParameters | None = None,
) -> xr.Dataset:
    """Return clipped statistics of a flat, for each amplifier and for the detector.

    Those of the detector are taken over its pixels, not over its amplifiers.

    Parameters
    ----------
    exposure : Dataset, (..., y, x)
        ``image``, float32, adu or electron, in trimmed orientation, bias and dark removed, not
        divided by a flat; ``mask``, if it has one. May be lazy; the result then is.
    amplifiers : Dataset over ``amp``
        The amplifier table of the detector.
    polygon : array_like, (vertex, 2), pixel, optional
        Corners (x, y) of the part of the detector that is not vignetted; pixels outside are left
        out.
    parameters : FlatStatisticsParameters, optional

    Returns
    -------
    Dataset
        For the detector, (...): ``mean`` (clipped), ``median`` (of all valid pixels), ``sigma``
        (scatter of pixels, with what the clip took away), ``clipped_sigma`` (without) and
        ``clip_limit`` (half width of the last pass), float64, in the unit of the image; ``count``
        of valid pixels before and ``count_used`` after the clip, int64. The same of each
        amplifier, (..., amp): ``amp_mean`` and so on. NaN and 0 where no pixel is valid.
        Coordinates of the exposure other than ``y`` and ``x`` are kept.

    Raises
    ------
    ValueError
        If an amplifier is not inside the image, or image and mask differ in shape.
    KeyError
        If there is no ``image``, or the mask does not know a plane.

    Notes
    -----
    ``sigma`` is that of the Gaussian which a cut at ``clip_limit`` leaves with ``clipped_sigma``
    (`unclipped_variance`); where no Gaussian fits, it is ``clipped_sigma``.

    Examples
    --------
    >>> box = {"y_start": 0, "y_stop": 4, "x_start": 0, "x_stop": 6}
    >>> columns = box | {f"data_{name}": value for name, value in box.items()}
    >>> table = xr.Dataset({name: ("amp", [value]) for name, value in columns.items()})
    >>> flat = xr.Dataset({"image": (("y", "x"), np.full((4, 6), 1000, "float32"))})
    >>> statistics = measure_flat(flat, table.assign_coords(amp=["A"]))
    >>> float(statistics["mean"]), float(statistics["sigma"]), int(statistics["amp_count"][0])
    (1000.0, 0.0, 24)
    """
    parameters = parameters or FlatStatisticsParameters()
    if "image" not in exposure:
        raise KeyError(f"the exposure has no variable 'image', it has {list(exposure.data_vars)}")
    image = exposure["image"]
    shape = (image.sizes[v.Y], image.sizes[v.X])
    boxes = _boxes(amplifiers, shape)
    usable = _usable(shape, polygon, parameters.edge)
    arrays, bits = [image], 0
    if v.MASK in exposure:
        bits = v.plane_bits(parameters.ignored_planes, exposure[v.MASK].attrs)
        arrays.append(exposure[v.MASK])
    whole = {v.Y: -1, v.X: -1}
    arrays = [array if array.chunks is None else array.chunk(whole) for array in arrays]
    table: xr.DataArray = xr.apply_ufunc(
        _statistics_of_blocks,
        *arrays,
        kwargs={
            "bits": bits,
            "boxes": list(boxes.values()),
            "usable": usable,
            "clip": parameters.clip,
            "iterations": parameters.iterations,
        },
        input_core_dims=[[v.Y, v.X]] * len(arrays),
        output_core_dims=[[v.AMP, STATISTIC]],
        dask="parallelized",
        output_dtypes=[np.float64],
        dask_gufunc_kwargs={"output_sizes": {v.AMP: len(boxes) + 1, STATISTIC: len(COLUMNS)}},
    )
    units = str(image.attrs.get("units", v.DIMENSIONLESS))
    variables = {}
    for index, name in enumerate(COLUMNS):
        column = table.isel({STATISTIC: index})
        if name in COUNTS:
            column = column.astype(np.int64).assign_attrs(units=v.DIMENSIONLESS)
        else:
            column = column.assign_attrs(units=units)
        variables[name] = column.isel({v.AMP: 0})
        variables[f"amp_{name}"] = column.isel({v.AMP: slice(1, None)})
    return xr.Dataset(variables).assign_coords({v.AMP: list(boxes)})


def reference_keys(statistics: xr.Dataset) -> dict[str, str | float | int]:
    """Return the statistics of one flat under the keys of the survey pipeline's metadata.

    There ``MEDIAN`` names the clipped mean, ``SIGMA`` the clipped standard deviation and ``N`` the
    number of valid pixels before the clip.

    Parameters
    ----------
    statistics : Dataset
        What `measure_flat` returned, of a single exposure and detector.

    Raises
    ------
    ValueError
        If there is more than one exposure or detector.

    Examples
    --------
    >>> columns = {"mean": 10.0, "clipped_sigma": 2.0, "count": 5}
    >>> statistics = xr.Dataset(
    ...     columns | {f"amp_{name}": ("amp", [value]) for name, value in columns.items()},
    ...     coords={"amp": ["A"]},
    ... )
    >>> reference_keys(statistics)["DETECTOR_N"], reference_keys(statistics)["AMP_NAME_0"]
    (5, 'A')
    """
    if statistics["mean"].ndim:
        raise ValueError(
            f"the keys are those of one exposure of one detector; choose one along "
            f"{', '.join(map(str, statistics['mean'].dims))}"
        )
    keys: dict[str, str | float | int] = {
        "DETECTOR_MEDIAN": float(statistics["mean"]),
        "DETECTOR_SIGMA": float(statistics["clipped_sigma"]),
        "DETECTOR_N": int(statistics["count"]),
    }
    for index, name in enumerate(statistics[v.AMP].values):
        row = statistics.isel({v.AMP: index})
        keys[f"AMP_NAME_{index}"] = str(name)
        keys[f"AMP_MEDIAN_{index}"] = float(row["amp_mean"])
        keys[f"AMP_SIGMA_{index}"] = float(row["amp_clipped_sigma"])
        keys[f"AMP_N_{index}"] = int(row["amp_count"])
    return keys


def _boxes(amplifiers: xr.Dataset, shape: tuple[int, int]) -> dict[str, Box]:
    boxes = {row.name: row.trimmed for row in amplifier_rows(amplifiers)}
    outside = [
        f"{name} {tuple(box)}"
        for name, box in boxes.items()
        if min(box) < 0 or box.y_stop > shape[0] or box.x_stop > shape[1] or box.size == 0
    ]
    if outside:
        raise ValueError(
            f"amplifiers (y_start, y_stop, x_start, x_stop) must lie inside the image of {shape} "
            f"pixels; these do not: {', '.join(outside)}"
        )
    return boxes


def _usable(
    shape: tuple[int, int], polygon: ArrayLike | None, edge: int
) -> NDArray[np.bool_] | None:
    """Return which pixels polygon and edge leave; None if all."""
    if polygon is None and edge == 0:
        return None
    usable = np.ones(shape, np.bool_) if polygon is None else inside_polygon(shape, polygon)
    if edge:
        inner = usable[edge:-edge, edge:-edge].copy()
        usable[:] = False
        usable[edge:-edge, edge:-edge] = inner
    return usable


def _statistics_of_blocks(
    image: NDArray[Any],
    mask: NDArray[Any] | None = None,
    *,
    bits: int,
    boxes: list[Box],
    usable: NDArray[np.bool_] | None,
    clip: float,
    iterations: int,
) -> NDArray[np.float64]:
    """Return the statistics, (..., detector and amplifiers, statistic)."""
    leading = image.shape[:-2]
    everything = (slice(None), slice(None))
    table = np.empty((*leading, len(boxes) + 1, len(COLUMNS)))
    if mask is not None:
        mask = np.broadcast_to(mask, image.shape)
    for index in np.ndindex(*leading):
        good = usable
        if mask is not None:
            good = (mask[index] & bits) == 0
            if usable is not None:
                good &= usable
        for row, part in enumerate([everything, *(box.slices for box in boxes)]):
            moments = clipped_moments(
                image[index][part],
                None if good is None else good[part],
                clip=clip,
                iterations=iterations,
            )
            variance = float(unclipped_variance(moments.variance, moments.half_width))
            table[index][row] = (
                moments.mean,
                moments.median,
                np.sqrt(moments.variance if np.isnan(variance) else variance),
                np.sqrt(moments.variance),
                moments.half_width,
                moments.count,
                moments.count_used,
            )
    return table
