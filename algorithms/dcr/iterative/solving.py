"""Solve a patch for its sub-bands by iteration, for comparison with the linear solution."""

from __future__ import annotations

import math
import warnings
from typing import Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.geometry import check_conditions
from skyloom.algorithms.dcr.geometry_check import geometry_figures, warn_of_geometry
from skyloom.algorithms.dcr.identifiability import warn_of_degeneracy
from skyloom.algorithms.dcr.iterative.clamps import model_taper
from skyloom.algorithms.dcr.iterative.finishing import (
    Gathered,
    Loaded,
    Setting,
    TileFound,
    finished,
    found_in,
)
from skyloom.algorithms.dcr.iterative.forward import Geometry, predict_visit, prepared_planes
from skyloom.algorithms.dcr.iterative.iteration import Iterated, IterativeTile, iterate_tile
from skyloom.algorithms.dcr.iterative.parameters import IterativeParameters
from skyloom.algorithms.dcr.model import init_model
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import (
    DcrSolution,
    Rows,
    Run,
    check_pixels,
    detected_pixels,
    jacobian_of,
    weighted_pixels,
)
from skyloom.algorithms.dcr.shifts import dcr_shifts
from skyloom.algorithms.dcr.tiles import Tile, tiles_of
from skyloom.algorithms.dcr.transfer import point_spreads
from skyloom.algorithms.errors import (
    DroppedInputWarning,
    NoBackgroundWarning,
    NoSourcesWarning,
    NotConvergedWarning,
    NoValidPixelsWarning,
)

__all__ = ["geometry_of", "predict_iterative", "solve_iterative"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
ADHERENCE: Final = 1e-5
"""Prior on the difference to the coadd where displacements are put to the test."""
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
    run: Run = map,
) -> DcrSolution:
    """Iterate to the sky in sub-bands, as the LSST Science Pipelines do.

    Colours at large scales never converge in a few iterations, and clamps keep the planes from
    describing blue and red stars: `skyloom.algorithms.dcr.solve_dcr` is better by far. This one is
    for comparison. Differences to the original: transposes are exact, the direction is that of
    the zenith on the grid, pairs of shifts are joined axis by axis, counts of iterations mean what
    they say, a diverged iteration is taken back, and each tile iterates by itself.

    Parameters
    ----------
    warps, conditions, band, template, jacobian, run
        As for `skyloom.algorithms.dcr.solve_dcr`.
    parameters : IterativeParameters, optional

    Returns
    -------
    DcrSolution
        As of `skyloom.algorithms.dcr.solve_dcr`, but planes have the template's variance in equal
        parts, as if they were independent; ``n_image`` counts, for each plane, the visits whose
        residuals reach a pixel, ``visit_count`` (y, x) those that have it, and ``model_weight``
        is what of the planes is not the coadd's. Of the diagnostics, ``convergence_first``,
        ``convergence_last`` and ``gain_last`` of tiles.

    Raises
    ------
    ValueError
        If conditions, PSFs or limits of the band are missing or wrong.
    GeometryError
        If warps, template and conditions are not of the same pixels and visits.

    Warns
    -----
    DegenerateGeometryWarning
        If the visits hardly differ in dispersion.
    NotConvergedWarning
        If tiles reach their last iteration or diverge, or visits show light dispersed another way
        than their geometry says; that needs their PSFs.
    NoBackgroundWarning
        If tiles have no background to tell the noise from.
    NoSourcesWarning, NoValidPixelsWarning
        If there is nothing to iterate for: the planes are equal parts of the coadd.
    DroppedInputWarning
        If the band has a throughput or an extinction, which the iteration does not know.
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
    rows = Rows(warps)

    def work(tile: Tile) -> TileFound:
        there = template.isel({v.Y: tile.rows, v.X: tile.columns})
        own = taper[tile.rows, tile.columns]
        loaded = _load(rows.cut(tile), there, own, reach, table, p)
        return found_in(loaded, iterate_tile(loaded.tile, geometry, p), tile, geometry, reach)

    found = Gathered(names.size, p.subfilters, taper.shape)
    for tile, one in zip(tiles, run(work, tiles), strict=True):
        found.add(tile, one)
    setting = Setting(warps, template, table, band, matrix, geometry, p)
    solution = finished(setting, model, found, taper)
    diagnostics = solution.diagnostics.assign(_geometry(setting))
    warn_of_degeneracy(diagnostics, p.subfilters)
    _warn(found.tiles)
    _warn_of_light(band)
    warn_of_geometry(diagnostics)
    return solution._replace(diagnostics=diagnostics)


def _geometry(setting: Setting) -> dict[str, float]:
    """Return what the diagnostics say of the geometry; nothing where no PSF is known."""
    warps = setting.warps
    if "psf" not in warps and "psf_fwhm" not in warps:
        return {}
    return geometry_figures(
        warps, setting.template, setting.band, setting.table, setting.matrix,
        point_spreads(warps, match=True), LinearParameters(), ADHERENCE,
        np.ones(warps.sizes[v.VISIT], bool),
    )  # fmt: skip


def _warn_of_light(band: Band) -> None:
    """Warn of what is known of the light of a band and does not count."""
    unused = [name for name in ("throughput", "extinction") if getattr(band, name)]
    if unused:
        warnings.warn(
            f"the iteration takes light of all wavelengths for equally strong in every visit: "
            f"{' and '.join(unused)} of band {band.name} do not count",
            DroppedInputWarning,
            stacklevel=3,
        )


def geometry_of(band: Band, table: xr.Dataset, matrix: Floats, p: IterativeParameters) -> Geometry:
    """Return the shifts of all visits."""
    mean = dcr_shifts(band, table, matrix, subfilters=p.subfilters, mode="endpoint_mean")
    split = dcr_shifts(
        band, table, matrix, subfilters=p.subfilters, mode="split",
        # A single plane is only moved: it cannot tell how it is smeared.
        split_threshold=p.split_threshold if p.split_subfilters and p.subfilters > 1 else np.inf,
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


def _taper(template: xr.Dataset, p: IterativeParameters) -> Images:
    """Return the taper over the patch, so that it does not depend on tiles."""
    known = np.isfinite(template["image"].to_numpy())
    if not p.use_model_weights:
        return np.asarray(known, np.float32)
    taper = model_taper(detected_pixels(template), p.model_weights_width)
    return np.asarray(taper * known, np.float32)


def _load(
    warps: xr.Dataset, template: xr.Dataset, taper: Images, reach: int, table: xr.Dataset,
    p: IterativeParameters,
) -> Loaded:  # fmt: skip
    """Return the arrays of a tile in a buffer of zeros, which nothing reaches beyond."""
    image, inverse, good = weighted_pixels(warps, p.reject_planes)
    factors = _visit_weights(inverse, good, table, p)
    weights = good * factors[:, None, None].astype(np.float32)
    coadd = np.nan_to_num(template["image"].values, nan=0.0, posinf=0.0, neginf=0.0)
    found = v.plane_bits(p.convergence_planes, template[v.MASK].attrs)
    bad = v.plane_bits(("NO_DATA", "BAD"), template[v.MASK].attrs)
    known = template[v.MASK].values

    def wide(values: NDArray[Any]) -> NDArray[Any]:
        edges = ((0, 0),) * (values.ndim - 2) + ((reach, reach),) * 2
        return np.pad(values, edges)

    tile = IterativeTile(
        wide(image),
        wide(weights),
        wide(coadd.astype(np.float32)),
        wide(taper),
        wide((known & found) != 0),
        wide((known & (found | bad)) == 0),
    )
    return Loaded(tile, inverse)


def _visit_weights(
    inverse: Images, good: NDArray[np.bool_], table: xr.Dataset, p: IterativeParameters
) -> Floats:
    """Return the weight of each visit, 1 in the mean of those with data."""
    number = good.sum(axis=(1, 2))
    total = inverse.sum(axis=(1, 2), dtype=np.float64)
    mean = np.divide(total, number, out=np.zeros(len(number)), where=number > 0)
    if p.airmass_weight:
        mean = mean / np.sin(np.deg2rad(table["altitude"].to_numpy()))
    some = mean > 0
    return np.asarray(mean / mean[some].mean() if some.any() else mean)


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
    crowded = sum(one.crowded for one in found)
    if crowded:
        warnings.warn(
            f"{crowded} of {len(found)} tiles have no background: the scatter of residuals is "
            "taken for their noise",
            NoBackgroundWarning,
            stacklevel=3,
        )
