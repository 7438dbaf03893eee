"""Solve a patch for its sub-bands: tiles, rejection, uncertainties, diagnostics."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band, subband_edges
from skyloom.algorithms.dcr.geometry import FIELDS, check_conditions
from skyloom.algorithms.dcr.identifiability import (
    band_vectors,
    identifiability,
    warn_of_degeneracy,
)
from skyloom.algorithms.dcr.iterative import IterativeParameters, solve_iterative
from skyloom.algorithms.dcr.linear import (
    Problem,
    load_problem,
    model_weight,
    prior_of,
    solve_tile,
    spectrum_of,
    visit_chi2,
)
from skyloom.algorithms.dcr.offsets import (
    Deviation,
    Step,
    coarse_offset,
    deviation,
    misfit_map,
    offset_step,
)
from skyloom.algorithms.dcr.operator import FourierOperator, Images, fourier_operator
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import DcrSolution, check_pixels, jacobian_of
from skyloom.algorithms.dcr.rejection import MODEL_ERROR, reject_pixels
from skyloom.algorithms.dcr.shifts import dcr_shifts, shift_margin
from skyloom.algorithms.dcr.tiles import Tile, tiles_of
from skyloom.algorithms.dcr.transfer import PointSpreads, point_spreads
from skyloom.algorithms.dcr.uncertainty import (
    GRID,
    noise_of_planes,
    plane_covariance,
)
from skyloom.algorithms.errors import (
    GeometryError,
    NoSourcesWarning,
    NotConvergedWarning,
    NoValidPixelsWarning,
    VisitOutlierWarning,
)

__all__ = ["solve_dcr"]

Floats = NDArray[np.float64]

Solver: TypeAlias = Literal["linear", "iterative"]

LEVERAGE: Final = 1e-6
"""Pixels of dispersion below which visits have none."""
CONFIDENT: Final = 100.0
"""Signal to noise of the brightest pixel in a visit from which the planes follow their data."""
LOST: Final = 0.2
"""Part of the pixels of sources in a visit that may be rejected before it is doubted."""
OFFSET_STEPS: Final = 8
OFFSET_ERROR: Final = 1e-4
"""Pixels to which the offset of a visit is found."""
SPREAD: Final = 8
"""Pixels around a tile beside the largest shift."""


def solve_dcr(
    warps: xr.Dataset,
    conditions: xr.Dataset,
    band: Band,
    template: xr.Dataset,
    *,
    jacobian: Floats | None = None,
    solver: Solver = "linear",
    parameters: LinearParameters | IterativeParameters | None = None,
) -> DcrSolution:
    """Solve for the sky in sub-bands from visits at different airmasses and parallactic angles.

    Parameters
    ----------
    warps : Dataset, (visit, y, x)
        ``image``, ``variance`` and ``mask`` of visits on the grid of a patch; ``psf`` (visit,
        psf_y, psf_x) or ``psf_fwhm`` (visit; pixel). May be lazy: one tile is read at a time.
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

    Returns
    -------
    DcrSolution
        ``model``, (subfilter, y, x): ``model`` (flux of each sub-band, units of the warps),
        ``variance``, and (y, x) ``mask``, ``n_image``, ``weight_sum`` and ``model_weight`` (1 at
        sources, 0 where planes are held to the coadd); ``covariance`` (subfilter, subfilter_2) of
        the planes in one pixel; ``psf``; the conditions of the visits that were used,
        ``mean_weight`` and ``wavelength_edges``.
        ``diagnostics``: ``chi2``, ``pixel_count``, ``rejected``, ``used``, offset and dispersion of
        visits; ``status``, ``iterations`` and ``residual`` of tiles; what the geometry allows.

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
        If iterations end early, or visits are not described by the model.
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
            warps, conditions, band, template, jacobian=jacobian, parameters=parameters
        )
    if solver != "linear":
        raise ValueError(f"solver must be 'linear' or 'iterative', got {solver!r}")
    if isinstance(parameters, IterativeParameters):
        raise ValueError("solver 'linear' needs LinearParameters, got IterativeParameters")
    p = parameters or LinearParameters()
    setup = _Setup(warps, conditions, band, template, jacobian, p)
    found = _settled(setup, _solve(setup, np.ones(setup.visits, bool)))
    solution = _finished(setup, found)
    _warn(setup, solution.diagnostics)
    return solution


class _Setup:
    """What all tiles share."""

    def __init__(
        self,
        warps: xr.Dataset,
        conditions: xr.Dataset,
        band: Band,
        template: xr.Dataset,
        jacobian: Floats | None,
        parameters: LinearParameters,
    ) -> None:
        check_conditions(conditions)
        check_pixels(warps, template, conditions)
        self.warps, self.template, self.band, self.p = warps, template, band, parameters
        self.names = warps[v.VISIT].to_numpy()
        self.conditions = conditions.sel({v.VISIT: self.names})
        self.visits = len(self.names)
        self.jacobian = jacobian_of(warps.attrs) if jacobian is None else np.asarray(jacobian)
        given = point_spreads(warps, parameters.match_seeing)
        self.fwhm = given.fwhm
        self.spreads: PointSpreads = given.in_sharpest_light(
            band, parameters.chromatic_seeing, parameters.subfilters
        )
        shifts = dcr_shifts(
            band, self.conditions, self.jacobian, subfilters=parameters.subfilters, mode="split",
            split_threshold=0.0,
        )  # fmt: skip
        needed = shift_margin(shifts, SPREAD)
        if parameters.margin is not None and parameters.margin < needed:
            raise GeometryError(
                f"margin must be at least {needed} pixels for these shifts, got {parameters.margin}"
            )
        self.reach = needed
        widest = math.ceil(4.0 * float(self.fwhm.max()))
        self.margin = parameters.margin if parameters.margin is not None else needed + widest
        self.vectors = band_vectors(band, self.conditions, self.jacobian)
        self.adherence = self._adherence()
        self.offsets = np.zeros((self.visits, 2))

    def operator(self, shape: tuple[int, int]) -> FourierOperator:
        """Return the operators over a periodic image of this shape."""
        return fourier_operator(
            shape,
            self.band,
            self.conditions,
            self.jacobian,
            subfilters=self.p.subfilters,
            in_band=self.p.in_band,
            transfer=self.spreads.ratios(shape),
            fwhm=self.spreads.widths,
            chromatic_seeing=self.p.chromatic_seeing,
            offsets=self.offsets,
        )

    def padded(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the shape of the periodic image for a tile."""
        reach = self.reach + math.ceil(float(np.abs(self.offsets).max()))
        found = (fft.next_fast_len(side + 2 * reach, real=True) for side in (rows, columns))
        rows, columns = found
        return rows, columns

    def _adherence(self) -> float:
        """Return the prior on the difference to the coadd, one for all tiles."""
        if self.p.adherence is not None:
            return self.p.adherence
        detected = v.plane_bits(["DETECTED"], self.template[v.MASK].attrs)
        at = (self.template[v.MASK].to_numpy() & detected) != 0
        image, variance = (self.template[name].to_numpy()[at] for name in ("image", "variance"))
        good = np.isfinite(image) & (variance > 0)
        per_visit = np.abs(image[good]) / np.sqrt(variance[good] * self.visits)
        return 1e-5 if per_visit.size and per_visit.max() >= CONFIDENT else 1e-4


class _Found:
    """What the tiles gave, added up."""

    def __init__(self, setup: _Setup, tiles: int) -> None:
        shape = tuple(setup.template.sizes[dim] for dim in (v.Y, v.X))
        self.planes = np.zeros((setup.p.subfilters, *shape), np.float32)
        self.weight_sum = np.zeros(shape, np.float32)
        self.n_image = np.zeros(shape, np.int16)
        self.chi2 = np.zeros(setup.visits)
        self.count = np.zeros(setup.visits, np.int64)
        self.lost = np.zeros(setup.visits, np.int64)
        self.rejected = np.zeros(setup.visits, np.int64)
        self.weights = np.zeros(setup.visits)
        self.area = 0
        self.used = np.ones(setup.visits, bool)
        self.status = np.full(tiles, v.DcrStatus.NOT_MEASURED, np.uint8)
        self.iterations = np.zeros(tiles, np.int32)
        self.residual = np.full(tiles, np.nan)

    @property
    def per_pixel(self) -> Floats:
        """Return chi2 per pixel of each visit, NaN without pixels."""
        found = np.full(len(self.chi2), np.nan)
        np.divide(self.chi2, self.count, out=found, where=self.count > 0)
        return found


def _tiles(setup: _Setup) -> list[Tile]:
    shape = (setup.template.sizes[v.Y], setup.template.sizes[v.X])
    return tiles_of(shape, setup.p.tile, setup.margin)


def _loaded(
    setup: _Setup, order: Sequence[int] | None = None
) -> Iterator[tuple[int, Tile, Problem, FourierOperator]]:
    """Yield the tiles, their data, and their operators."""
    tiles = _tiles(setup)
    operators: dict[tuple[int, int], FourierOperator] = {}
    for number in range(len(tiles)) if order is None else order:
        tile = tiles[number]
        place = {v.Y: tile.rows, v.X: tile.columns}
        problem = load_problem(setup.warps.isel(place), setup.template.isel(place), setup.p)
        padded = setup.padded(*problem.coadd.shape)
        if padded not in operators:
            operators = {padded: setup.operator(padded)}
        yield number, tile, problem, operators[padded]


def _solve(setup: _Setup, used: NDArray[np.bool_]) -> _Found:
    """Solve all tiles with some visits."""
    found = _Found(setup, len(_tiles(setup)))
    found.used = used
    for number, tile, problem, operator in _loaded(setup):
        if not used.all():
            weights = np.where(used[:, None, None], problem.weights, np.float32(0.0))
            problem = problem._replace(weights=weights)
        _solve_one(setup, problem, operator, tile, number, found)
    found.weights /= found.area
    return found


def _solve_one(
    setup: _Setup, problem: Problem, operator: FourierOperator, tile: Tile, number: int,
    found: _Found,
) -> None:  # fmt: skip
    """Solve a tile, reject what few visits show, solve again; add the tile to the patch."""
    prior = prior_of(setup.spreads.model_transfer(operator.shape), setup.p, setup.adherence)
    fwhm = setup.spreads.model_fwhm
    if np.abs(setup.vectors).max() < LEVERAGE and not len(operator.transfer):
        planes = np.repeat(problem.coadd[None] / np.float32(setup.p.subfilters),
                           setup.p.subfilters, axis=0)  # fmt: skip
        solved_status, residuals = v.DcrStatus.NO_LEVERAGE, [0.0]
    else:
        given = problem.weights > 0
        solved = solve_tile(problem, operator, prior, fwhm, setup.p)
        for _ in range(setup.p.reject_rounds if solved.residuals else 0):
            cleaned, rejected = reject_pixels(
                problem, operator, solved.planes, setup.p.reject_threshold
            )
            found.rejected += rejected
            if cleaned is problem:
                break
            problem = cleaned
            solved = solve_tile(problem, operator, prior, fwhm, setup.p, solved.planes)
        planes, solved_status, residuals = solved.planes, solved.status, solved.residuals
        gone = given & (problem.weights == 0) & problem.detected & (tile.weight() >= 0.5)
        found.lost += gone.sum(axis=(1, 2))
    weight = tile.weight()
    at = (tile.rows, tile.columns)
    found.planes[:, *at] += weight * planes
    found.weight_sum[at] = np.where(
        weight > 0, problem.weights.sum(axis=0, dtype=np.float64), found.weight_sum[at]
    )
    found.n_image[at] = np.where(weight > 0, (problem.weights > 0).sum(axis=0), found.n_image[at])
    found.weights += problem.mean_weights * problem.coadd.size
    found.area += problem.coadd.size
    chi2, count = visit_chi2(problem, operator, planes, weight >= 0.5)
    found.chi2 += chi2
    found.count += count
    found.status[number] = solved_status
    found.iterations[number] = max(len(residuals) - 1, 0)
    found.residual[number] = residuals[-1] if residuals else np.nan


def _outliers(found: _Found, parameters: LinearParameters) -> NDArray[np.bool_]:
    """Return which visits disagree with the others; none if that would leave fewer than two."""
    per_pixel = found.per_pixel
    if not np.isfinite(per_pixel).any():
        return np.zeros(len(per_pixel), bool)
    outliers = np.nan_to_num(per_pixel) > _limit(found, parameters)
    return outliers if (~outliers & found.used).sum() >= 2 else np.zeros(len(per_pixel), bool)


def _limit(found: _Found, parameters: LinearParameters) -> float:
    """Return the chi2 per pixel beyond which a visit disagrees with the others."""
    return max(parameters.outlier_factor * float(np.nanmedian(found.per_pixel)), 1.0)


def _robbed(found: _Found) -> NDArray[np.bool_]:
    """Return which visits lost so many pixels of sources that these may be in the wrong place."""
    return np.asarray(found.lost > LOST * np.maximum(found.lost + found.count, 1))


def _settled(setup: _Setup, found: _Found) -> _Found:
    """Return a solution in which visits that disagree are fitted at an offset or left out."""
    wrong = _outliers(found, setup.p)
    doubtful = wrong | _robbed(found)
    if not setup.p.max_offset or (~doubtful).sum() < 2:
        doubtful = wrong
    if not doubtful.any():
        return found
    before, typical = found.per_pixel, float(np.nanmedian(found.per_pixel))
    others = _solve(setup, ~doubtful)
    agree = np.zeros(setup.visits, bool)
    if setup.p.max_offset:
        agree = _fit_offsets(setup, others, np.flatnonzero(doubtful))
    if (agree | wrong).any():
        used = ~wrong | agree
        found = others if (used == ~doubtful).all() else _solve(setup, used)
        still = _outliers(found, setup.p) & (setup.offsets != 0).any(axis=1)
        if still.any():
            setup.offsets[still] = 0.0
            found = _solve(setup, used & ~still)
    left, moved = ~found.used, (setup.offsets != 0).any(axis=1)
    if left.any():
        names = ", ".join(str(name) for name in setup.names[left])
        warnings.warn(
            f"visits {names} disagree with the others (chi2 per pixel {_listed(before[left])}, of "
            f"all {typical:.2f}): they are left out",
            VisitOutlierWarning,
            stacklevel=3,
        )
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
    return found


def _fit_offsets(setup: _Setup, others: _Found, visits: NDArray[np.intp]) -> NDArray[np.bool_]:
    """Fit offsets of visits to the solution of others, and return which visits agree there."""
    places = {int(visit): np.zeros(2) for visit in visits}
    radius = math.ceil(setup.p.max_offset)
    limit = _limit(others, setup.p)
    agree = np.zeros(setup.visits, bool)
    for visit, told in _deviations(setup, others, places).items():
        agree[visit] = told.part_lost <= LOST and told.per_pixel <= limit
    places = {visit: place for visit, place in places.items() if not agree[visit]}
    if not places:
        return agree
    maps = {visit: np.zeros((2 * radius + 1,) * 2) for visit in places}
    for _, problem, seen in _templates(setup, others, places):
        for visit, image in seen.items():
            maps[visit] += misfit_map(problem, visit, image, radius)
    places = {visit: coarse_offset(cost) for visit, cost in maps.items()}
    for _ in range(OFFSET_STEPS):
        steps = {visit: Step(np.zeros((2, 2)), np.zeros(2)) for visit in places}
        for counted, problem, seen in _templates(setup, others, places):
            for visit, image in seen.items():
                steps[visit] += offset_step(problem, visit, image, places[visit], counted)
        changes = {visit: step.solved() for visit, step in steps.items()}
        places = {visit: places[visit] + change for visit, change in changes.items()}
        if max(float(np.abs(change).max()) for change in changes.values()) < OFFSET_ERROR:
            break
    for visit, told in _deviations(setup, others, places).items():
        near = float(np.hypot(*places[visit])) <= setup.p.max_offset
        if near and told.part_lost <= LOST:
            agree[visit] = True
            setup.offsets[visit] = places[visit]
    return agree


def _templates(
    setup: _Setup, found: _Found, visits: Iterable[int]
) -> Iterator[tuple[NDArray[np.bool_], Problem, dict[int, Images]]]:
    """Yield for each tile its own pixels, its data, and what visits should show."""
    for _, tile, problem, operator in _loaded(setup):
        spectrum = spectrum_of(found.planes[:, tile.rows, tile.columns], operator)
        seen = {visit: operator.predict(visit, spectrum) for visit in visits}
        yield tile.weight() >= 0.5, problem, seen


def _deviations(setup: _Setup, found: _Found, places: Mapping[int, Floats]) -> dict[int, Deviation]:
    """Return how well visits agree with a solution at some offsets."""
    told = dict.fromkeys(places, Deviation(0.0, 0, 0))
    for counted, problem, seen in _templates(setup, found, places):
        for visit, image in seen.items():
            told[visit] += deviation(
                problem, visit, image, places[visit], counted, setup.p.reject_threshold,
                MODEL_ERROR,
            )  # fmt: skip
    return told


def _finished(setup: _Setup, found: _Found) -> DcrSolution:
    """Return model and diagnostics with what the geometry makes of the noise."""
    p, spreads = setup.p, setup.spreads
    operator = setup.operator(GRID)
    weights = np.where(found.used, found.weights, 0.0)
    noise = noise_of_planes(operator, weights, spreads.model_transfer(GRID), p, setup.adherence)
    covariance = plane_covariance(noise)
    model = _model(setup, found, covariance, weights)
    able = identifiability(setup.vectors, weights, spreads.model_fwhm)
    radius = np.hypot(np.fft.fftfreq(GRID[0])[:, None], np.fft.rfftfreq(GRID[1]))
    inside = radius < 1.0 / (2.0 * spreads.model_fwhm)
    total, count = found.chi2[found.used].sum(), found.count[found.used].sum()
    visit = {
        "chi2": found.per_pixel,
        "pixel_count": found.count,
        "rejected": found.rejected,
        "used": found.used,
        "offset_y": setup.offsets[:, 0],
        "offset_x": setup.offsets[:, 1],
        "mean_weight": found.weights,
        "dispersion_y": setup.vectors[:, 0],
        "dispersion_x": setup.vectors[:, 1],
    }
    values: dict[str, Any] = {name: (v.VISIT, value) for name, value in visit.items()}
    values |= {
        "status": ("tile", found.status, v.flag_attributes(v.DcrStatus)),
        "iterations": ("tile", found.iterations),
        "residual": ("tile", found.residual),
        "chi2_total": total / count if count else np.nan,
        "dispersion_trace": able.trace,
        "dispersion_eigenvalues": ("axis", able.eigenvalues),
        "moment_sigma": able.moment_sigma,
        "condition_number": float(noise.condition()[inside].max()),
    }
    for name in ("altitude", "parallactic_angle"):
        values[name] = setup.conditions[name]
    diagnostics = xr.Dataset(values, {v.VISIT: setup.names})
    for name in ("dispersion_y", "dispersion_x", "offset_y", "offset_x"):
        diagnostics[name].attrs["units"] = v.PIXEL
    return DcrSolution(model, diagnostics)


def _model(setup: _Setup, found: _Found, covariance: Floats, weights: Floats) -> xr.Dataset:
    template, p = setup.template, setup.p
    local = np.divide(
        weights.sum(), found.weight_sum, out=np.zeros(found.weight_sum.shape),
        where=found.weight_sum > 0,
    )  # fmt: skip
    bits = v.MASK_PLANES
    unknown = ~np.isfinite(template["image"].to_numpy())
    mask = template[v.MASK].to_numpy() | np.where(
        (found.n_image == 0) | unknown, bits["NO_DATA"], 0
    )
    detected = v.plane_bits(["DETECTED"], template[v.MASK].attrs)
    weight = model_weight((template[v.MASK].to_numpy() & detected) != 0, setup.spreads.model_fwhm)
    mask = mask | np.where(found.n_image == 1, bits["ONE_INPUT"], 0)
    units = template["image"].attrs.get("units", "")
    edges = subband_edges(setup.band, p.subfilters)
    pixels, planes = (v.Y, v.X), (v.SUBFILTER, v.Y, v.X)
    variance = np.full(found.planes.shape, np.inf, np.float32)
    noise = np.diag(covariance)[:, None, None]
    np.multiply(noise, local, out=variance, where=found.n_image > 0, casting="same_kind")
    values: dict[str, Any] = {
        "model": (planes, np.where(unknown, np.float32(0.0), found.planes), {"units": units}),
        "variance": (planes, variance, {"units": f"{units}2" if units else ""}),
        v.MASK: (pixels, mask.astype(np.int32), v.mask_attributes()),
        "n_image": (pixels, found.n_image),
        "weight_sum": (pixels, found.weight_sum),
        "model_weight": (pixels, np.where(unknown, 0.0, weight).astype(np.float32)),
        "covariance": ((v.SUBFILTER, f"{v.SUBFILTER}_2"), covariance),
        "wavelength_edges": (
            (v.SUBFILTER, v.BAND_EDGE),
            np.stack([edges[:-1], edges[1:]], axis=1),
            {"units": v.NANOMETRE},
        ),
        "psf": setup.spreads.model_image(),
        "mean_weight": (v.VISIT, weights),
        "psf_fwhm": (v.VISIT, setup.fwhm, {"units": v.PIXEL}),
    }
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


def _warn(setup: _Setup, diagnostics: xr.Dataset) -> None:
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
        warnings.warn(
            f"{int((status == v.DcrStatus.NOT_CONVERGED).sum())} of {len(status)} tiles did not "
            f"converge in {p.max_iterations} iterations",
            NotConvergedWarning,
            stacklevel=3,
        )
    if float(diagnostics["chi2_total"]) > p.chi2_limit:
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


def _listed(values: Images | Floats) -> str:
    return ", ".join(f"{value:.2f}" for value in values)
