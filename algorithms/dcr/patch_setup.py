"""What the linear solution of a patch is made with."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.geometry import check_conditions
from skyloom.algorithms.dcr.identifiability import band_vectors
from skyloom.algorithms.dcr.operator import FourierOperator, Spectra, fourier_operator
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.patch import Run, check_pixels, detected_pixels, jacobian_of
from skyloom.algorithms.dcr.ratio_products import RatioProducts, ratio_products
from skyloom.algorithms.dcr.shifts import dcr_shifts, shift_margin
from skyloom.algorithms.dcr.transfer import PointSpreads, point_spreads
from skyloom.algorithms.errors import GeometryError

__all__ = ["PatchSetup"]

Floats = NDArray[np.float64]

CONFIDENT: Final = 100.0
"""Signal to noise of the brightest pixel in a visit from which the planes follow their data."""
SPREAD: Final = 8
"""Pixels around a patch beside the largest shift."""
LARGE: Final = 2**28
"""Bytes of the transfer functions of all visits from which on they are made when needed."""


class PatchSetup:
    """What is given of a patch, and what follows from it alone."""

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
        self.reach = needed if parameters.margin is None else parameters.margin
        self.vectors = band_vectors(band, self.conditions, self.jacobian)
        self.adherence = self._adherence()
        self.offsets = np.zeros((self.visits, 2))
        self.run = run

    def operator(self, shape: tuple[int, int]) -> FourierOperator:
        """Return the operators over a periodic image of this shape."""
        return fourier_operator(
            shape,
            self.band,
            self.conditions,
            self.jacobian,
            subfilters=self.p.subfilters,
            in_band=self.p.in_band,
            transfer=self._ratios(shape),
            fwhm=self.spreads.widths,
            chromatic_seeing=self.p.chromatic_seeing,
            offsets=self.offsets,
        )

    def _ratios(self, shape: tuple[int, int]) -> Spectra | RatioProducts | None:
        if 4 * shape[0] * shape[1] * self.visits < LARGE:
            return self.spreads.ratios(shape)
        return ratio_products(self.spreads, shape)

    def padded(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the shape of the periodic image for some pixels."""
        reach = self.reach + math.ceil(float(np.abs(self.offsets).max()))
        found = (fft.next_fast_len(side + 2 * reach, real=True) for side in (rows, columns))
        rows, columns = found
        return rows, columns

    def _adherence(self) -> float:
        """Return the prior on the difference to the coadd, one for all pixels."""
        if self.p.adherence is not None:
            return self.p.adherence
        at = detected_pixels(self.template)
        image, variance = (self.template[name].to_numpy()[at] for name in ("image", "variance"))
        good = np.isfinite(image) & (variance > 0)
        per_visit = np.abs(image[good]) / np.sqrt(variance[good] * self.visits)
        return 1e-5 if per_visit.size and per_visit.max() >= CONFIDENT else 1e-4
