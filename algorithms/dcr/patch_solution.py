"""The linear solution of a patch: its tiles solved one by one, and put together."""

from __future__ import annotations

import math
import threading
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.geometry import check_conditions
from skyloom.algorithms.dcr.identifiability import band_vectors
from skyloom.algorithms.dcr.linear import (
    Problem,
    load_problem,
    parts_of,
    prior_of,
    solve_tile,
    visit_chi2,
)
from skyloom.algorithms.dcr.operator import FourierOperator, fourier_operator
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import Rows, Run, check_pixels, jacobian_of
from skyloom.algorithms.dcr.rejection import reject_pixels
from skyloom.algorithms.dcr.shifts import dcr_shifts, shift_margin
from skyloom.algorithms.dcr.tiles import Tile, tiles_of
from skyloom.algorithms.dcr.transfer import PointSpreads, point_spreads
from skyloom.algorithms.errors import GeometryError

__all__ = ["PatchSetup", "PatchSum", "TileSum", "solve_patch"]

Floats = NDArray[np.float64]
Images = NDArray[np.float32]
Bools = NDArray[np.bool_]

LEVERAGE: Final = 1e-6
"""Pixels of dispersion below which visits have none."""
CONFIDENT: Final = 100.0
"""Signal to noise of the brightest pixel in a visit from which the planes follow their data."""
SPREAD: Final = 8
"""Pixels around a tile beside the largest shift."""


class PatchSetup:
    """What all tiles share."""

    def __init__(
        self,
        warps: xr.Dataset,
        conditions: xr.Dataset,
        band: Band,
        template: xr.Dataset,
        jacobian: Floats | None,
        parameters: LinearParameters,
        run: Run = map,
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
        self.run = run
        self.tiles = tiles_of(
            (template.sizes[v.Y], template.sizes[v.X]), parameters.tile, self.margin
        )
        self._rows = Rows(warps)
        self._lock = threading.Lock()
        self._operators: dict[tuple[int, int], FourierOperator] = {}

    def move(self, offsets: Floats) -> None:
        """Say how far (visit, 2; dy, dx) visits lie from where they should."""
        self.offsets = offsets
        self._operators = {}

    def load(self, tile: Tile) -> tuple[Problem, FourierOperator]:
        """Return the data of a tile and its operators; of the last shape these are remembered."""
        there = self.template.isel({v.Y: tile.rows, v.X: tile.columns})
        problem = load_problem(self._rows.cut(tile), there, self.p)
        shape = self.padded(*problem.coadd.shape)
        with self._lock:
            if shape not in self._operators:
                self._operators = {shape: self.operator(shape)}
            return problem, self._operators[shape]

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


class TileSum(NamedTuple):
    """What a tile gives: ``planes`` (subfilter, y, x); of the pixels that are its own alone
    ``weight_sum`` and ``n_image`` (y, x), and of each visit chi2 at sources, their ``pixels``, how
    many were ``lost``, all that were ``rejected`` and the sum of ``weights``; how it ended."""

    planes: Images
    weight_sum: Floats
    n_image: NDArray[np.int64]
    chi2: Floats
    pixels: NDArray[np.int64]
    lost: NDArray[np.int64]
    rejected: NDArray[np.int64]
    weights: Floats
    status: v.DcrStatus
    residuals: list[float]


SOLVED: Final = (v.DcrStatus.CONVERGED, v.DcrStatus.NOT_CONVERGED)
"""How tiles end whose planes are more than equal parts of the coadd."""


class PatchSum:
    """What the tiles gave, added up in their order."""

    def __init__(self, setup: PatchSetup, used: Bools) -> None:
        shape = tuple(setup.template.sizes[dim] for dim in (v.Y, v.X))
        visits = setup.visits
        self.planes = np.zeros((setup.p.subfilters, *shape), np.float32)
        self.weight_sum = np.zeros(shape, np.float32)
        self.n_image = np.zeros(shape, np.int16)
        self.solved = np.zeros(shape, bool)
        self.chi2, self.weights = np.zeros(visits), np.zeros(visits)
        self.count, self.lost, self.rejected = np.zeros((3, visits), np.int64)
        self.used = used
        self.status: list[v.DcrStatus] = []
        self.iterations: list[int] = []
        self.residual: list[float] = []

    def add(self, tile: Tile, found: TileSum) -> None:
        """Add a tile."""
        weight, at = tile.weight(), (tile.rows, tile.columns)
        self.planes[:, *at] += weight * found.planes
        self.weight_sum[tile.own] = found.weight_sum
        self.n_image[tile.own] = found.n_image
        self.solved[tile.own] = found.status in SOLVED
        self.chi2 += found.chi2
        self.weights += found.weights
        self.count += found.pixels
        self.lost += found.lost
        self.rejected += found.rejected
        self.status.append(found.status)
        self.iterations.append(max(len(found.residuals) - 1, 0))
        self.residual.append(found.residuals[-1] if found.residuals else np.nan)

    @property
    def per_pixel(self) -> Floats:
        """Return chi2 per pixel of each visit, NaN without pixels."""
        found = np.full(len(self.chi2), np.nan)
        np.divide(self.chi2, self.count, out=found, where=self.count > 0)
        return found


def solve_patch(setup: PatchSetup, used: Bools) -> PatchSum:
    """Solve all tiles with some visits."""

    def work(tile: Tile) -> TileSum:
        problem, operator = setup.load(tile)
        if not used.all():
            weights = np.where(used[:, None, None], problem.weights, np.float32(0.0))
            problem = problem._replace(weights=weights)
        return _solve_one(setup, problem, operator, tile)

    found = PatchSum(setup, used)
    for tile, one in zip(setup.tiles, setup.run(work, setup.tiles), strict=True):
        found.add(tile, one)
    found.weights /= found.n_image.size
    return found


def _solve_one(
    setup: PatchSetup, problem: Problem, operator: FourierOperator, tile: Tile
) -> TileSum:
    """Solve a tile, reject what few visits show, and solve again."""
    prior = prior_of(setup.spreads.model_transfer(operator.shape), setup.p, setup.adherence)
    fwhm = setup.spreads.model_fwhm
    own = np.zeros(problem.coadd.shape, bool)
    own[tile.inner] = True
    rejected, lost = np.zeros((2, setup.visits), np.int64)
    if np.abs(setup.vectors).max() < LEVERAGE and not len(operator.transfer):
        planes = parts_of(problem.coadd, operator)
        status, residuals = v.DcrStatus.NO_LEVERAGE, [0.0]
    else:
        given = problem
        solved = solve_tile(problem, operator, prior, fwhm, setup.p)
        for _ in range(setup.p.reject_rounds if solved.residuals else 0):
            cleaned, _ = reject_pixels(problem, operator, solved.planes, setup.p.reject_threshold)
            if cleaned is problem:
                break
            problem = cleaned
            solved = solve_tile(problem, operator, prior, fwhm, setup.p, solved.planes)
        planes, status, residuals = solved.planes, solved.status, solved.residuals
        if problem is not given:
            gone = (given.weights > 0) & (problem.weights == 0) & own
            rejected = gone.sum(axis=(1, 2))
            lost = (gone & problem.detected).sum(axis=(1, 2))
    chi2, count = visit_chi2(problem, operator, planes, own)
    weights = problem.weights[:, *tile.inner]
    return TileSum(
        planes,
        weights.sum(axis=0, dtype=np.float64),
        (weights > 0).sum(axis=0),
        chi2,
        count,
        lost,
        rejected,
        weights.sum(axis=(1, 2), dtype=np.float64),
        status,
        residuals,
    )
