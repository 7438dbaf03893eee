"""How a model was fitted, from what is kept with it."""

from __future__ import annotations

import json
from typing import Final, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.choice import solver_parameters
from skyloom.algorithms.dcr.geometry import FIELDS
from skyloom.algorithms.dcr.iterative import IterativeParameters
from skyloom.algorithms.dcr.operator import FourierOperator, fourier_operator
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.transfer import PointSpreads
from skyloom.algorithms.dcr.uncertainty import GRID, NoiseBasis, noise_basis, noise_power

__all__ = [
    "Fitted",
    "description_of",
    "fitted_description",
    "operator_of",
    "power_of",
    "spread_of",
    "spreads_of",
]

Floats = NDArray[np.float64]
OF_NOISE: Final = (
    "noise_place", "weight_sum", "mean_weight", "psf_fwhm", "coverage", "coverage_weight"
)  # fmt: skip
"""What the noise of a linear solution needs."""


def description_of(model: xr.Dataset) -> tuple[Band, LinearParameters, Floats]:
    """Return band, parameters and jacobian of a model."""
    missing = [
        name for name in ("band_definition", "jacobian", "parameters") if name not in model.attrs
    ]
    iterative = model.attrs.get("solver") == "iterative"
    needed = ("model", "variance", "psf", *(() if iterative else OF_NOISE))
    missing += [name for name in needed if name not in model]
    if missing:
        raise ValueError(
            f"the model lacks {', '.join(missing)}: it is not of solve_dcr, or of an earlier "
            "version, and has to be made again"
        )
    kept = solver_parameters(model.attrs["parameters"])
    if isinstance(kept, IterativeParameters):
        parameters = LinearParameters(subfilters=kept.subfilters, in_band="flat")
    else:
        parameters = kept
    if model.sizes[v.SUBFILTER] != parameters.subfilters:
        raise ValueError(
            f"the model has {model.sizes[v.SUBFILTER]} planes, its operator needs "
            f"{parameters.subfilters}"
        )
    band = Band.model_validate_json(model.attrs["band_definition"])
    return band, parameters, np.array(json.loads(model.attrs["jacobian"]), float)


def operator_of(
    shape: tuple[int, int], band: Band, conditions: xr.Dataset, jacobian: Floats,
    p: LinearParameters, spreads: PointSpreads,
) -> FourierOperator:  # fmt: skip
    return fourier_operator(
        shape, band, conditions, jacobian, subfilters=p.subfilters, in_band=p.in_band,
        transfer=spreads.ratios(shape), fwhm=spreads.widths, chromatic_seeing=p.chromatic_seeing,
    )  # fmt: skip


def spreads_of(model: xr.Dataset, band: Band, p: LinearParameters) -> PointSpreads:
    """Return the PSFs of the visits of a model: Gaussians if only their widths were known."""
    images = None
    if "visit_psf" in model:
        stamps = model["visit_psf"].transpose(v.VISIT, v.PSF_Y, v.PSF_X).to_numpy()
        images = stamps.astype(np.float64) if np.isfinite(stamps).all() else None
    own = PointSpreads(model["psf_fwhm"].to_numpy(), images, p.match_seeing)
    return own.in_sharpest_light(band, p.chromatic_seeing, p.subfilters)


def spread_of(model: xr.Dataset, band: Band, p: LinearParameters) -> PointSpreads:
    """Return the PSF of the model as that of a visit."""
    return PointSpreads(np.array([spreads_of(model, band, p).model_fwhm]), None, match=True)


def power_of(model: xr.Dataset) -> Floats | None:
    """Return the power of the noise of visits over its variance; None if it was not known."""
    if "noise_covariance" not in model:
        return None
    known = model["noise_covariance"].transpose(v.VISIT, v.LAG_Y, v.LAG_X).to_numpy().astype(float)
    return noise_power(known, GRID) if np.isfinite(known).all() else None


class Fitted(NamedTuple):
    """What the noise of a model follows from: what visits show and planes are held by, the
    ``basis``; the mean ``weights`` (coverage_group, visit) of visits where they cover the patch
    alike, and the ``total`` of those over all of it."""

    basis: NoiseBasis
    weights: Floats
    total: float


def fitted_description(
    model: xr.Dataset, band: Band, jacobian: Floats, p: LinearParameters
) -> Fitted:
    """Return what the noise of a model follows from."""
    spreads = spreads_of(model, band, p)
    operator = operator_of(GRID, band, model[list(FIELDS)], jacobian, p, spreads)
    adherence = float(model.attrs["adherence"])
    basis = noise_basis(operator, spreads.model_transfer(GRID), p, adherence, power_of(model))
    weights = model["coverage_weight"].transpose(v.COVERAGE_GROUP, v.VISIT).to_numpy()
    return Fitted(basis, weights, float(model["mean_weight"].sum()))
