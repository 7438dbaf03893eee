"""Solve a patch for its sub-bands: rejection, uncertainties, diagnostics."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band, subband_edges
from skyloom.algorithms.dcr.conditioning import condition_number
from skyloom.algorithms.dcr.coverage import Coverage, coverage_of
from skyloom.algorithms.dcr.geometry import FIELDS
from skyloom.algorithms.dcr.geometry_check import geometry_figures, warn_of_geometry
from skyloom.algorithms.dcr.identifiability import identifiability, warn_of_degeneracy
from skyloom.algorithms.dcr.iterative import IterativeParameters, solve_iterative
from skyloom.algorithms.dcr.linear import model_weight
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import DcrSolution, Run, detected_pixels
from skyloom.algorithms.dcr.patch_setup import PatchSetup
from skyloom.algorithms.dcr.settling import Found, solve_settled
from skyloom.algorithms.dcr.uncertainty import (
    GRID,
    mean_covariance,
    noise_basis,
    noise_of_planes,
    noise_place,
    noise_power,
    plane_levels,
    variance_by_level,
)
from skyloom.algorithms.errors import (
    NoSourcesWarning,
    NotConvergedWarning,
    NoValidPixelsWarning,
    VariableSourceWarning,
    VisitOutlierWarning,
)

__all__ = ["solve_dcr"]

Floats = NDArray[np.float64]

SCALED: Final = 0.02
"""Part by which the flux of a visit differs that a user should know of."""

Solver: TypeAlias = Literal["linear", "iterative"]


def solve_dcr(
    warps: xr.Dataset,
    conditions: xr.Dataset,
    band: Band,
    template: xr.Dataset,
    *,
    jacobian: Floats | None = None,
    solver: Solver = "linear",
    parameters: LinearParameters | IterativeParameters | None = None,
    run: Run = map,
) -> DcrSolution:
    """Solve for the sky in sub-bands from visits at different airmasses and parallactic angles.

    Parameters
    ----------
    warps : Dataset, (visit, y, x)
        ``image``, ``variance`` and ``mask`` of visits on the grid of a patch; ``psf`` (visit,
        psf_y, psf_x) or ``psf_fwhm`` (visit; pixel); ``noise_covariance`` (visit, lag_y, lag_x)
        where the noise of neighbouring pixels is alike, as of
        `skyloom.algorithms.warp.warp_noise_covariance`. May be lazy: one visit is read at a time.
    conditions : Dataset, (visit)
        As of `skyloom.algorithms.visit_conditions.visit_conditions`, at the centre of the patch.
    band : Band
    template : Dataset, (y, x)
        Coadd of the same warps, with ``image``, ``variance`` and ``mask`` (DETECTED).
    jacobian : array, (2, 2), arcsec/pixel, optional
        Offsets on the sky per pixel; from the attributes ``wcs`` and ``box`` if not given.
    solver : "linear" or "iterative"
        Weighted least squares, or the iteration of the LSST Science Pipelines, for comparison,
        `solve_iterative`.
    parameters : LinearParameters or IterativeParameters, optional
        Of that solver.
    run : callable
        How visits (tiles, of the iteration) are worked on: ``map``, one after the other, or that of
        a pool of threads. The result does not depend on it.

    Returns
    -------
    DcrSolution
        ``model``, (subfilter, y, x): ``model`` (flux of each sub-band, units of the warps),
        ``variance``, and (y, x) ``mask``, ``n_image`` (visits that have a pixel; by iteration it
        is (subfilter, y, x), those that reach a plane), ``weight_sum`` and ``model_weight`` (1 at
        sources, 0 where planes are held to the coadd); ``covariance`` (subfilter, subfilter_2) of
        the planes in one pixel of mean weight at sources; ``level_covariance`` (coverage_group,
        noise_level, subfilter, subfilter_2) also away from them and for each ``coverage`` (y, x)
        by visits, whose mean weights are ``coverage_weight`` (coverage_group, visit), and
        ``noise_place`` (y, x) which level holds, see `skyloom.algorithms.dcr.uncertainty`; ``psf``,
        and ``visit_psf`` (visit, psf_y, psf_x) if the warps have it; the conditions of the visits
        that were used, ``mean_weight`` and ``wavelength_edges``.
        ``diagnostics``: ``chi2``, ``pixel_count``, ``rejected``, ``used``, offset and dispersion of
        visits; ``status``, ``iterations`` and ``residual`` (tile), of one tile for the linear
        solution, which is that of the whole patch; what the geometry allows.

    Raises
    ------
    ValueError
        If conditions, PSFs or limits of the band are missing or wrong, the solver is unknown, or
        the parameters are those of the other one.
    GeometryError
        If warps, template and conditions are not of the same pixels and visits.

    Warns
    -----
    DegenerateGeometryWarning
        If the visits hardly differ in dispersion.
    NotConvergedWarning
        If iterations end early, visits are not described by the model, or show light dispersed
        another way than their geometry says.
    VisitOutlierWarning
        If a visit disagrees with the others: it is fitted at an offset, or left out.
    NoSourcesWarning, NoValidPixelsWarning
        If there is nothing to solve for: the planes are equal parts of the coadd.

    Examples
    --------
    A star of equal flux at all wavelengths, seen in two visits:

    >>> from skyloom.algorithms import vocabulary as v
    >>> from skyloom.algorithms.psf import gaussian_psf
    >>> image = np.stack([1e4 * gaussian_psf(4.0, size=31).to_numpy()] * 2).astype("f4")
    >>> planes = {"image": image, "variance": np.ones_like(image), "mask": image.astype("i4") * 0}
    >>> warps = xr.Dataset({name: (("visit", "y", "x"), x) for name, x in planes.items()})
    >>> warps = warps.assign(psf_fwhm=("visit", [4.0, 4.0])).assign_coords(visit=[1, 2])
    >>> template = warps.isel(visit=0, drop=True).drop_vars("psf_fwhm")
    >>> template["mask"][:] = v.MASK_PLANES["DETECTED"]
    >>> air = {"temperature": 8.0, "pressure": 73892.0, "humidity": 30.0}
    >>> place = {"latitude": -30.2, "height": 2663.0}
    >>> table = {name: ("visit", [x, x]) for name, x in (air | place).items()}
    >>> angles = {"altitude": ("visit", [88.0, 87.0]), "parallactic_angle": ("visit", [0.0, 90.0])}
    >>> conditions = xr.Dataset(table | angles, {"visit": [1, 2]})
    >>> band = Band.from_effective("g", 476.31, 147.0)
    >>> import warnings
    >>> from skyloom.algorithms.errors import DegenerateGeometryWarning
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", DegenerateGeometryWarning)
    ...     found = solve_dcr(warps, conditions, band, template, jacobian=np.diag([-0.2, 0.2]))
    >>> found.model["model"].sum(("y", "x")).values.round(-2).tolist()
    [3300.0, 3300.0, 3300.0]

    Notes
    -----
    Given the displacements the problem is linear, and solved as such: see
    `skyloom.algorithms.dcr.linear`.
    """
    if solver == "iterative":
        if isinstance(parameters, LinearParameters):
            raise ValueError("solver 'iterative' needs IterativeParameters, got LinearParameters")
        return solve_iterative(
            warps, conditions, band, template, jacobian=jacobian, parameters=parameters, run=run
        )
    if solver != "linear":
        raise ValueError(f"solver must be 'linear' or 'iterative', got {solver!r}")
    if isinstance(parameters, IterativeParameters):
        raise ValueError("solver 'linear' needs LinearParameters, got IterativeParameters")
    p = parameters or LinearParameters()
    setup = PatchSetup(warps, conditions, band, template, jacobian, p, run)
    found = solve_settled(setup)
    solution = _finished(setup, found)
    _warn(setup, solution.diagnostics)
    _warn_of_visits(setup, found)
    return solution


def _finished(setup: PatchSetup, found: Found) -> DcrSolution:
    """Return model and diagnostics with what the geometry makes of the noise."""
    p, spreads = setup.p, setup.spreads
    operator = setup.operator(GRID)
    weights = np.where(found.used, found.weights, 0.0)
    transfer = spreads.model_transfer(GRID)
    power = None
    if "noise_covariance" in setup.warps:
        power = noise_power(_noise_covariance(setup.warps).to_numpy().astype(float), GRID)
    basis = noise_basis(operator, transfer, p, setup.adherence, power)
    coverage, whole = coverage_of(found.blocks), float(weights.sum())
    levels = np.stack([plane_levels(basis, group, whole) for group in coverage.weights])
    covariance = mean_covariance(noise_of_planes(basis, weights))
    model = _model(setup, found, weights, coverage, levels, covariance)
    able = identifiability(setup.vectors, weights, spreads.model_fwhm)
    total, count = found.chi2[found.used].sum(), found.count[found.used].sum()
    visit = {
        "chi2": found.per_pixel,
        "pixel_count": found.count,
        "rejected": found.rejected,
        "rejected_fraction": found.part_rejected,
        "varying": found.varying,
        "flux_scale": found.scales,
        "used": found.used,
        "offset_y": setup.offsets[:, 0],
        "offset_x": setup.offsets[:, 1],
        "mean_weight": found.weights,
        "dispersion_y": setup.vectors[:, 0],
        "dispersion_x": setup.vectors[:, 1],
    }
    values: dict[str, Any] = {name: (v.VISIT, value) for name, value in visit.items()}
    values |= {
        "status": ("tile", np.array([found.status], np.uint8), v.flag_attributes(v.DcrStatus)),
        "iterations": ("tile", [max(len(found.residuals) - 1, 0)]),
        "residual": ("tile", [(found.residuals or [np.nan])[-1]]),
        "chi2_total": total / count if count else np.nan,
        "dispersion_trace": able.trace,
        "dispersion_eigenvalues": ("axis", able.eigenvalues),
        "moment_sigma": able.moment_sigma,
        "condition_number": condition_number(operator, weights, spreads.model_fwhm),
    }
    agree = found.used & ~(setup.offsets != 0).any(axis=1)
    agree &= np.abs(found.scales - 1.0) <= SCALED
    values |= geometry_figures(
        setup.warps, setup.template, setup.band, setup.conditions, setup.jacobian, spreads, p,
        setup.adherence, agree,
    )  # fmt: skip
    for name in ("altitude", "parallactic_angle"):
        values[name] = setup.conditions[name]
    diagnostics = xr.Dataset(values, {v.VISIT: setup.names})
    for name in ("dispersion_y", "dispersion_x", "offset_y", "offset_x"):
        diagnostics[name].attrs["units"] = v.PIXEL
    return DcrSolution(model, diagnostics)


def _model(
    setup: PatchSetup,
    found: Found,
    weights: Floats,
    coverage: Coverage,
    levels: Floats,
    covariance: Floats,
) -> xr.Dataset:
    template, p = setup.template, setup.p
    bits = v.MASK_PLANES
    unknown = ~np.isfinite(template["image"].to_numpy())
    mask = template[v.MASK].to_numpy() | np.where(
        (found.n_image == 0) | unknown, bits["NO_DATA"], 0
    )
    fwhm = setup.spreads.model_fwhm
    weight = model_weight(detected_pixels(template), fwhm)
    place = noise_place(weight, np.full(weight.shape, found.solved), fwhm)
    mask = mask | np.where(found.n_image == 1, bits["ONE_INPUT"], 0)
    units = template["image"].attrs.get("units", "")
    edges = subband_edges(setup.band, p.subfilters)
    pixels, planes = (v.Y, v.X), (v.SUBFILTER, v.Y, v.X)
    square = (v.SUBFILTER, f"{v.SUBFILTER}_2")
    totals = coverage.weights.sum(axis=1)
    variance = np.full(found.planes.shape, np.inf, np.float32)
    for s, plane in enumerate(variance):
        local = variance_by_level(
            levels[..., s, s], totals, coverage.group, place, found.weight_sum
        )
        np.copyto(plane, local, where=found.n_image > 0)
    values: dict[str, Any] = {
        "model": (planes, np.where(unknown, np.float32(0.0), found.planes), {"units": units}),
        "variance": (planes, variance, {"units": f"{units}2" if units else ""}),
        v.MASK: (pixels, mask.astype(np.int32), v.mask_attributes()),
        "n_image": (pixels, found.n_image),
        "weight_sum": (pixels, found.weight_sum),
        "model_weight": (pixels, np.where(unknown, 0.0, weight).astype(np.float32)),
        "noise_place": (pixels, place),
        "coverage": (pixels, coverage.group),
        "coverage_weight": ((v.COVERAGE_GROUP, v.VISIT), coverage.weights),
        "covariance": (square, covariance),
        "level_covariance": ((v.COVERAGE_GROUP, v.NOISE_LEVEL, *square), levels),
        "wavelength_edges": (
            (v.SUBFILTER, v.BAND_EDGE),
            np.stack([edges[:-1], edges[1:]], axis=1),
            {"units": v.NANOMETRE},
        ),
        "psf": setup.spreads.model_image(),
        "mean_weight": (v.VISIT, weights),
        "psf_fwhm": (v.VISIT, setup.fwhm, {"units": v.PIXEL}),
    }
    if "psf" in setup.warps:
        images = setup.warps["psf"].transpose(v.VISIT, v.PSF_Y, v.PSF_X)
        values["visit_psf"] = images.variable.astype(np.float32)
    if "noise_covariance" in setup.warps:
        values["noise_covariance"] = _noise_covariance(setup.warps).variable.astype(np.float32)
    values |= {name: setup.conditions[name] for name in FIELDS}
    attrs: Mapping[str, Any] = {
        **{name: value for name, value in template.attrs.items() if name in ("box", "wcs")},
        "band": setup.band.name,
        "band_definition": setup.band.model_dump_json(),
        "jacobian": json.dumps(setup.jacobian.tolist()),
        "parameters": p.model_dump_json(),
        "adherence": setup.adherence,
        "model_fwhm": setup.spreads.model_fwhm,
        "solver": "linear",
    }
    coords = {name: at for name, at in template.coords.items() if v.VISIT not in at.dims}
    return xr.Dataset(values, {**coords, v.VISIT: setup.names}, attrs)


def _noise_covariance(warps: xr.Dataset) -> xr.DataArray:
    return warps["noise_covariance"].transpose(v.VISIT, v.LAG_Y, v.LAG_X)


def _warn(setup: PatchSetup, diagnostics: xr.Dataset) -> None:
    """Say what a user should know of a solution."""
    p = setup.p
    status = diagnostics["status"].to_numpy()
    nothing = bool((status == v.DcrStatus.NO_VALID_PIXELS).all())
    if not nothing:
        warn_of_degeneracy(diagnostics, p.subfilters)
    if nothing:
        warnings.warn("no visit has a valid pixel", NoValidPixelsWarning, stacklevel=3)
    elif (status == v.DcrStatus.NO_SOURCES).all():
        warnings.warn("nothing is detected on the coadd", NoSourcesWarning, stacklevel=3)
    if (status == v.DcrStatus.NOT_CONVERGED).any():
        left = float(diagnostics["residual"].max())
        warnings.warn(
            f"the planes did not converge in {p.max_iterations} iterations: a relative residual of "
            f"{left:.1e} is left, {p.tolerance:.1e} is wanted",
            NotConvergedWarning,
            stacklevel=3,
        )
    # A single plane has no colours: that it does not describe stars says nothing.
    if p.subfilters > 1 and float(diagnostics["chi2_total"]) > p.chi2_limit:
        diagnostics["status"] = diagnostics["status"].where(
            status != v.DcrStatus.CONVERGED, np.uint8(v.DcrStatus.BAD_FIT)
        )
        warnings.warn(
            f"the visits are not described by sub-bands (chi2 per pixel "
            f"{float(diagnostics['chi2_total']):.1f}): are conditions, projection and reference "
            "wavelength right?",
            NotConvergedWarning,
            stacklevel=3,
        )
    warn_of_geometry(diagnostics)


def _warn_of_visits(setup: PatchSetup, found: Found) -> None:
    """Say which visits are not as the others are."""

    def named(at: NDArray[np.bool_]) -> str:
        return ", ".join(str(name) for name in setup.names[at])

    left_out = ~found.used
    if left_out.any():
        typical = np.nanmedian(found.per_pixel) if found.count.any() else np.nan
        warnings.warn(
            f"visits {named(left_out)} disagree with the others (chi2 per pixel "
            f"{_listed(found.before[left_out])}, of all {typical:.2f}): they are left out",
            VisitOutlierWarning,
            stacklevel=3,
        )
    moved = (setup.offsets != 0).any(axis=1)
    if moved.any():
        told = ", ".join(
            f"{name} by ({dy:.2f}, {dx:.2f})"
            for name, (dy, dx) in zip(setup.names[moved], setup.offsets[moved], strict=True)
        )
        warnings.warn(
            f"visits lie elsewhere than the others, {told} pixels (y, x), and are fitted there",
            VisitOutlierWarning,
            stacklevel=3,
        )
    scaled = found.used & (np.abs(found.scales - 1.0) > SCALED)
    if scaled.any():
        warnings.warn(
            f"sources of visits {named(scaled)} have {_listed(found.scales[scaled])} of the flux "
            "that the others show: these visits are scaled",
            VisitOutlierWarning,
            stacklevel=3,
        )
    varying = found.varying > 0
    if varying.any():
        warnings.warn(
            f"{int(found.varying.sum())} times a source is not in one of few visits what it is in "
            f"the others (visits {named(varying)}): these pixels of it do not count",
            VariableSourceWarning,
            stacklevel=3,
        )


def _listed(values: Floats) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
