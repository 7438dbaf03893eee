"""Solve a patch for its sub-bands by iteration, for comparison with the linear solution."""

from __future__ import annotations

import json
import math
import warnings
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.geometry import FIELDS, check_conditions
from skyloom.algorithms.dcr.identifiability import band_vectors, identifiability
from skyloom.algorithms.dcr.iterative.clamps import model_taper
from skyloom.algorithms.dcr.iterative.forward import Geometry, predict_visit, prepared_planes
from skyloom.algorithms.dcr.iterative.iteration import Iterated, IterativeTile, iterate_tile
from skyloom.algorithms.dcr.iterative.parameters import IterativeParameters
from skyloom.algorithms.dcr.model import init_model
from skyloom.algorithms.dcr.patch import DcrSolution, check_pixels, good_pixels, jacobian_of
from skyloom.algorithms.dcr.shifts import dcr_shifts
from skyloom.algorithms.dcr.tiles import tiles_of
from skyloom.algorithms.dcr.transfer import PointSpreads, point_spreads
from skyloom.algorithms.errors import (
    NoSourcesWarning,
    NotConvergedWarning,
    NoValidPixelsWarning,
)

__all__ = ["select_psf_visits", "solve_iterative"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
SPLINE: Final = 12
"""Pixels that the coefficients of splines reach."""


def solve_iterative(
    warps: xr.Dataset,
    conditions: xr.Dataset,
    band: Band,
    template: xr.Dataset,
    *,
    jacobian: Floats | None = None,
    parameters: IterativeParameters | None = None,
) -> DcrSolution:
    """Iterate to the sky in sub-bands, as the LSST Science Pipelines do.

    Colours at large scales never converge in a few iterations, and clamps keep the planes from
    describing blue and red stars: `skyloom.algorithms.dcr.solve_dcr` is better by far. This one is
    for comparison. Differences to the original: transposes are exact, the direction is that of
    the zenith on the grid, pairs of shifts are joined axis by axis, counts of iterations mean what
    they say, a diverged iteration is taken back, and each tile iterates by itself.

    Parameters
    ----------
    warps, conditions, band, template, jacobian
        As for `skyloom.algorithms.dcr.solve_dcr`.
    parameters : IterativeParameters, optional

    Returns
    -------
    DcrSolution
        As of `skyloom.algorithms.dcr.solve_dcr`, without the noise covariance: planes have the
        template's variance in equal parts. Of the diagnostics, ``convergence_first`` and
        ``convergence_last`` of tiles.

    Raises
    ------
    ValueError
        If conditions, PSFs or limits of the band are missing or wrong.
    GeometryError
        If warps, template and conditions are not of the same pixels and visits.

    Warns
    -----
    NotConvergedWarning
        If tiles reach their last iteration, or diverge.
    NoSourcesWarning, NoValidPixelsWarning
        If there is nothing to iterate for: the planes are equal parts of the coadd.
    """
    p = parameters or IterativeParameters()
    check_conditions(conditions)
    check_pixels(warps, template, conditions)
    names = warps[v.VISIT].to_numpy()
    table = conditions.sel({v.VISIT: names})
    matrix = jacobian_of(warps.attrs) if jacobian is None else np.asarray(jacobian, float)
    geometry = geometry_of(band, table, matrix, p)
    model = init_model(template, band, p.subfilters)
    taper = _taper(template, p)
    reach = math.ceil(float(np.abs(geometry.split).max())) + 1 + SPLINE
    tiles = tiles_of((template.sizes[v.Y], template.sizes[v.X]), p.tile, 2 * reach)
    planes = np.zeros((p.subfilters, template.sizes[v.Y], template.sizes[v.X]), np.float32)
    counts = np.zeros_like(planes)
    found = []
    for tile in tiles:
        place = {v.Y: tile.rows, v.X: tile.columns}
        data = _load(warps.isel(place), template.isel(place), taper[tile.rows, tile.columns],
                     reach, table, p)  # fmt: skip
        one = iterate_tile(data, geometry, p)
        found.append(one)
        inside = (slice(None), slice(reach, -reach), slice(reach, -reach))
        weight = tile.weight()
        planes[:, tile.rows, tile.columns] += weight * one.planes[inside]
        counts[:, tile.rows, tile.columns] += weight * one.counts[inside]
    solution = _finished(model, planes, counts, found, geometry, warps, table, band, matrix, p)
    _warn(found)
    return solution


def geometry_of(band: Band, table: xr.Dataset, matrix: Floats, p: IterativeParameters) -> Geometry:
    """Return the shifts of all visits."""
    mean = dcr_shifts(band, table, matrix, subfilters=p.subfilters, mode="endpoint_mean")
    split = dcr_shifts(
        band, table, matrix, subfilters=p.subfilters, mode="split",
        split_threshold=p.split_threshold if p.split_subfilters else np.inf,
    )  # fmt: skip
    pairs = [np.stack([each["shift_y"], each["shift_x"]], axis=-1) for each in (split, mean)]
    return Geometry(pairs[0], pairs[1], p.order)


def predict_iterative(
    model: xr.Dataset, band: Band, conditions: xr.Dataset, matrix: Floats
) -> Images:
    """Return what a visit shows of an iterated model, by the shifts of its iteration."""
    p = IterativeParameters.model_validate_json(model.attrs["parameters"])
    geometry = geometry_of(band, conditions, matrix, p)
    planes = model["model"].transpose(v.SUBFILTER, v.Y, v.X).to_numpy().astype(np.float32)
    reach = math.ceil(float(np.abs(geometry.split).max())) + 1 + SPLINE
    wide = np.pad(planes, ((0, 0), (reach, reach), (reach, reach)))
    seen = predict_visit(prepared_planes(wide, 1.0, p.order), geometry, 0)
    return seen[reach:-reach, reach:-reach].copy()


def select_psf_visits(fwhm: Floats, detector_fwhm: Floats, template_fwhm: float) -> Any:
    """Return which visits are sharp enough for the PSF of a coadd.

    Parameters
    ----------
    fwhm : array, (visit,), pixel
    detector_fwhm : array, pixel
        Of all detectors that contribute; their median is one limit.
    template_fwhm : float, pixel
        Of the plain coadd, the other limit.

    Returns
    -------
    ndarray of bool, (visit,)
        All False if none is; the PSF is the template's then.

    Examples
    --------
    >>> select_psf_visits(np.array([3.0, 4.0, 5.0]), np.array([3.0, 4.0, 5.0]), 4.5).tolist()
    [True, True, False]
    """
    return np.asarray(fwhm) <= min(float(np.median(detector_fwhm)), template_fwhm)


def _taper(template: xr.Dataset, p: IterativeParameters) -> Images:
    """Return the taper over the patch, so that it does not depend on tiles."""
    bits = v.plane_bits(["DETECTED"], template[v.MASK].attrs)
    detected = (template[v.MASK].to_numpy() & bits) != 0
    return model_taper(detected, p.model_weights_width)


def _load(
    warps: xr.Dataset, template: xr.Dataset, taper: Images, reach: int, table: xr.Dataset,
    p: IterativeParameters,
) -> IterativeTile:  # fmt: skip
    """Return the arrays of a tile in a buffer of zeros, which nothing reaches beyond."""
    image, variance, good = good_pixels(warps, p.reject_planes)
    factors = _visit_weights(variance, good, table, p)
    weights = good * factors[:, None, None].astype(np.float32)
    coadd = np.nan_to_num(template["image"].values, nan=0.0, posinf=0.0, neginf=0.0)
    found = v.plane_bits(["DETECTED"], template[v.MASK].attrs)
    bad = v.plane_bits(("NO_DATA", "BAD"), template[v.MASK].attrs)
    known = template[v.MASK].values

    def wide(values: NDArray[Any]) -> NDArray[Any]:
        edges = ((0, 0),) * (values.ndim - 2) + ((reach, reach),) * 2
        return np.pad(values, edges)

    return IterativeTile(
        wide(np.where(good, image, np.float32(0.0))),
        wide(weights),
        wide(coadd.astype(np.float32)),
        wide(taper),
        wide((known & found) != 0),
        wide((known & (found | bad)) == 0),
    )


def _visit_weights(
    variance: Images, good: NDArray[np.bool_], table: xr.Dataset, p: IterativeParameters
) -> Floats:
    """Return the weight of each visit, 1 in the mean of those with data."""
    inverse = np.divide(1.0, variance, out=np.zeros(variance.shape), where=good)
    number = good.sum(axis=(1, 2))
    mean = np.divide(inverse.sum(axis=(1, 2)), number, out=np.zeros(len(number)), where=number > 0)
    if p.airmass_weight:
        mean = mean / np.sin(np.deg2rad(table["altitude"].to_numpy()))
    some = mean > 0
    return np.asarray(mean / mean[some].mean() if some.any() else mean)


def _finished(
    model: xr.Dataset, planes: Images, counts: Images, found: list[Iterated], geometry: Geometry,
    warps: xr.Dataset, table: xr.Dataset, band: Band, matrix: Floats, p: IterativeParameters,
) -> DcrSolution:  # fmt: skip
    """Return model and diagnostics."""
    spreads: PointSpreads = point_spreads(warps, False)
    names = warps[v.VISIT].to_numpy()
    vectors = band_vectors(band, table, matrix)
    able = identifiability(vectors, np.ones(len(names)), spreads.model_fwhm)
    units = model["model"].attrs
    visits = {name: (v.VISIT, table[name].to_numpy(), table[name].attrs) for name in FIELDS}
    values: dict[str, Any] = {
        "model": ((v.SUBFILTER, v.Y, v.X), planes, units),
        "n_image": ((v.SUBFILTER, v.Y, v.X), np.rint(counts).astype(np.int16)),
        "psf": spreads.model_image(),
        "psf_fwhm": (v.VISIT, spreads.fwhm, {"units": v.PIXEL}),
        **visits,
    }
    done = model.assign(values).assign_coords({v.VISIT: names})
    done.attrs |= {
        "band_definition": band.model_dump_json(),
        "jacobian": json.dumps(matrix.tolist()),
        "parameters": p.model_dump_json(),
        "model_fwhm": spreads.model_fwhm,
        "solver": "iterative",
    }
    nothing = float("nan")
    statuses = np.array([one.status for one in found], np.uint8)
    diagnostics = xr.Dataset(
        {
            "status": ("tile", statuses, v.flag_attributes(v.DcrStatus)),
            "iterations": ("tile", [max(len(one.convergence) - 1, 0) for one in found]),
            "convergence_first": ("tile", [(one.convergence or [nothing])[0] for one in found]),
            "convergence_last": ("tile", [(one.convergence or [nothing])[-1] for one in found]),
            "dispersion_y": (v.VISIT, vectors[:, 0], {"units": v.PIXEL}),
            "dispersion_x": (v.VISIT, vectors[:, 1], {"units": v.PIXEL}),
            "dispersion_trace": able.trace,
            "dispersion_eigenvalues": ("axis", able.eigenvalues),
            "moment_sigma": able.moment_sigma,
        },
        {v.VISIT: names},
    )
    return DcrSolution(done, diagnostics)


def _warn(found: list[Iterated]) -> None:
    """Say what a user should know of the iteration."""
    statuses = [one.status for one in found]
    if all(status == v.DcrStatus.NO_VALID_PIXELS for status in statuses):
        warnings.warn("no visit has a valid pixel", NoValidPixelsWarning, stacklevel=3)
    elif all(status == v.DcrStatus.NO_SOURCES for status in statuses):
        warnings.warn("nothing is detected on the coadd", NoSourcesWarning, stacklevel=3)
    left = sum(s in (v.DcrStatus.NOT_CONVERGED, v.DcrStatus.DIVERGED) for s in statuses)
    if left:
        warnings.warn(
            f"{left} of {len(statuses)} tiles ended before they converged",
            NotConvergedWarning,
            stacklevel=3,
        )
