"""What a sky subtraction takes of faint extended light."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms.errors import NoUsableDataError
from skyloom.algorithms.sky.focal_basis import Regressors, chebyshev_terms, scaled_to_box
from skyloom.algorithms.sky.normal_kernels import add_normal, apply_design, eliminate
from skyloom.algorithms.sky.sample_arrays import Samples, collect_samples
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.scales import sky_groups

__all__ = ["lsb_transfer"]

Floats = NDArray[np.float64]

TOLERANCE = 1e-10  # pivot below which a column depends on those before it


def lsb_transfer(
    samples: xr.Dataset | Iterable[xr.Dataset],
    sizes: Sequence[float],
    *,
    centers: Sequence[tuple[float, float]] | None = None,
    detector_types: Mapping[Any, str] | None = None,
    focal_box: Sequence[float] | None = None,
    parameters: SolveScaleParameters | None = None,
) -> xr.Dataset:
    """Return which part of faint extended light a fit takes for sky.

    A Gaussian of each size is put at each place, and fitted as the sky is. What the fit takes is
    the amplitude of the Gaussian in it: 0 for light that is kept, 1 for light that is lost.

    Parameters
    ----------
    samples : Dataset or iterable of Dataset, (sample)
        As for `solve_scales`, or from `samples_of_bins`. Only positions, templates and variances
        matter.
    sizes : sequence of float
        Standard deviations of the Gaussians, in the units of the positions (mm).
    centers : sequence of (x, y), optional
        By default a grid of 3 x 3 over the inner half of the focal plane.
    detector_types, focal_box, parameters
        As for `solve_scales`.

    Returns
    -------
    Dataset, (size, place)
        ``removed`` in 0 ... 1, NaN where no sample lies within a Gaussian; ``center_x``,
        ``center_y`` (place).

    Raises
    ------
    NoUsableDataError
        If no sample has a variance.

    Notes
    -----
    The linear response ``H = A (A^T W A)^-1 A^T W`` of the fit; light that is masked or set aside
    as an outlier is lost to a smaller part.

    Examples
    --------
    >>> y, x = np.mgrid[:40, :40]
    >>> samples = xr.Dataset(
    ...     {"level": ("sample", np.zeros(1600)), "level_variance": ("sample", np.ones(1600))},
    ...     coords={"x": ("sample", x.ravel()), "y": ("sample", y.ravel())},
    ... )
    >>> transfer = lsb_transfer(samples, [2.0, 20.0], centers=[(19.5, 19.5)])
    >>> transfer["removed"].values.round(3)
    array([[0.031],
           [0.961]])
    """
    parameters = SolveScaleParameters() if parameters is None else parameters
    parts = [samples] if isinstance(samples, xr.Dataset) else list(samples)
    arrays = collect_samples(parts, focal_box)
    variance = np.where(np.isfinite(arrays.level_variance), arrays.level_variance, 0.0)
    good = np.isfinite(arrays.level) & (variance > 0)
    if arrays.template is not None:
        good &= np.isfinite(arrays.template)
    if not good.any():
        raise NoUsableDataError("no sample has a level and a variance")
    used = arrays.where(good)
    groups, group = sky_groups(used, detector_types, parameters)
    regressors = Regressors(
        *scaled_to_box(used.x, used.y, arrays.box),
        terms=chebyshev_terms(parameters.order),
        group=group,
        groups=len(groups),
        template=used.template,
    )
    places = _grid(arrays) if centers is None else [(float(x), float(y)) for x, y in centers]
    removed = np.full((len(sizes), len(places)), np.nan)
    weight = 1.0 / used.level_variance
    for row, size in enumerate(sizes):
        for column, (x, y) in enumerate(places):
            square = ((used.x - x) ** 2 + (used.y - y) ** 2) / float(size) ** 2
            removed[row, column] = _taken(regressors, np.exp(-0.5 * square), weight)
    units = {"units": arrays.position_units}
    return xr.Dataset(
        {"removed": (("size", "place"), removed, {"units": ""})},
        coords={
            "size": ("size", np.asarray(sizes, np.float64), units),
            "center_x": ("place", np.array([x for x, _ in places]), units),
            "center_y": ("place", np.array([y for _, y in places]), units),
        },
    )


def _grid(arrays: Samples) -> list[tuple[float, float]]:
    box = arrays.box
    steps = (0.25, 0.5, 0.75)
    return [
        (
            box.x_start + i * (box.x_stop - box.x_start),
            box.y_start + j * (box.y_stop - box.y_start),
        )
        for j in steps
        for i in steps
    ]


def _taken(regressors: Regressors, light: Floats, weight: Floats) -> float:
    """Return the amplitude of the light in the fit to it."""
    if not np.sum(light**2) > 0:
        return np.nan
    columns = regressors.columns
    matrix, right = np.zeros((columns, columns)), np.zeros(columns)
    rows = regressors.rows(0, regressors.size)
    add_normal(rows, weight, light, matrix, right)
    matrix = matrix + np.tril(matrix, -1).T
    scale = np.sqrt(np.where(np.diag(matrix) > 0, np.diag(matrix), 1.0))
    kept, pivots = np.zeros(columns, np.bool_), np.zeros(columns)
    _, inverse = eliminate(matrix / np.outer(scale, scale), TOLERANCE, kept, pivots)
    fitted = np.empty(regressors.size)
    apply_design(rows, (inverse @ (right / scale)) / scale, fitted)
    return float(np.sum(fitted * light) / np.sum(light**2))
