"""What a visit at any altitude and parallactic angle would show of a model."""

from __future__ import annotations

import math
import warnings
from typing import Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import fft

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.bands import Band
from skyloom.algorithms.dcr.fitted import (
    description_of,
    fitted_description,
    operator_of,
    spread_of,
)
from skyloom.algorithms.dcr.geometry import FIELDS
from skyloom.algorithms.dcr.identifiability import band_vectors, distance_outside
from skyloom.algorithms.dcr.iterative.solving import predict_iterative
from skyloom.algorithms.dcr.linear import spectrum_of
from skyloom.algorithms.dcr.operator import FourierOperator, fourier_operator
from skyloom.algorithms.dcr.parameters import LinearParameters
from skyloom.algorithms.dcr.rim import lacking_light
from skyloom.algorithms.dcr.seeing import Seeing, blurred, seeing_of
from skyloom.algorithms.dcr.shifts import dcr_shifts, shift_margin
from skyloom.algorithms.dcr.uncertainty import (
    GRID,
    template_levels,
    variance_by_level,
)
from skyloom.algorithms.errors import ExtrapolatedTemplateWarning

__all__ = ["predict_template"]

Floats = NDArray[np.float64]

OUTSIDE: Final = 0.5
"""Pixels of dispersion outside of those of the model's visits that need a warning."""


def predict_template(
    model: xr.Dataset,
    conditions: xr.Dataset,
    *,
    jacobian: Floats | None = None,
    spectrum: Floats | None = None,
    fwhm: float | None = None,
    psf: xr.DataArray | None = None,
) -> xr.Dataset:
    """Return the image that a visit would show of a model, with its noise and PSF.

    The same operator as in the fit is applied: the same spectra within sub-bands, the same kind of
    shift and, if the seeing of the visit is given, the ratio of its transfer function to that of
    the model. Without it a template is as sharp as the model.

    Parameters
    ----------
    model : Dataset, (subfilter, y, x)
        As of `solve_dcr`.
    conditions : Dataset, (visit)
        Of one visit, at the centre of the patch, as of
        `skyloom.algorithms.visit_conditions.visit_conditions`.
    jacobian : array, (2, 2), arcsec/pixel, optional
        That of the model if not given.
    spectrum : array, (subfilter,), optional
        Relative fluxes of the source that the PSF is stated for; equal ones if not given.
    fwhm : float, pixel, optional
        Width of stars in the visit at the reference wavelength of the band; their profile is that
        of the model.
    psf : DataArray, (psf_y, psf_x), optional
        Instead of a width, the image of such a star, without what refraction does to it.

    Returns
    -------
    Dataset, (y, x)
        ``image`` and ``variance``, in the units of the model, ``mask``, with EDGE where light that
        the visit shows comes from beyond the model, and ``psf`` (psf_y, psf_x) of the model,
        displaced and stretched as the template is.

    Raises
    ------
    ValueError
        If the model lacks a plane or what its operator needs, there is not one visit, the
        conditions lack something, or the seeing is none.

    Warns
    -----
    ExtrapolatedTemplateWarning
        If the dispersion is outside of the hull of those of the model's visits by more than 0.5
        pixel, or the seeing is sharper than that of the model: the template then is sharpened, no
        frequency by more than a factor of 2.

    Notes
    -----
    The variance is that of single pixels. The wider the seeing, the smaller it is, and the more the
    noise of neighbours is alike.
    """
    band, p, own = description_of(model)
    if conditions.sizes.get(v.VISIT) != 1:
        raise ValueError(f"conditions must be of one visit, got {conditions.sizes.get(v.VISIT, 0)}")
    matrix = own if jacobian is None else np.asarray(jacobian, float)
    shifts = dcr_shifts(
        band, conditions, matrix, subfilters=p.subfilters, mode="split", split_threshold=0.0
    )
    _check_hull(model, band, conditions, matrix, own)
    seeing = seeing_of(model, band, p.chromatic_seeing, fwhm=fwhm, psf=psf)
    wide = shift_margin(shifts, 8)
    if seeing is not None:
        wide += math.ceil(2.0 * max(seeing.fwhm, seeing.own_fwhm))
    seen = _template_operator(GRID, model, band, conditions, matrix, p, seeing)
    if model.attrs.get("solver") == "iterative":
        image = predict_iterative(model, band, conditions, matrix)
        variance = model["variance"].sum(v.SUBFILTER, dtype=np.float64).to_numpy()
        if seeing is not None:
            image = blurred(image, seeing)
            variance *= float((fft.irfft2(seeing.ratio(GRID), GRID) ** 2).sum())
    else:
        image = _predict_linear(model, band, conditions, matrix, p, wide, seeing)
        variance = _variance(model, band, own, p, seen)
    pixels = (v.Y, v.X)
    values = {
        "image": (pixels, image, dict(model["model"].attrs)),
        "variance": (pixels, variance.astype(np.float32), dict(model["variance"].attrs)),
        v.MASK: _mask(model, seen),
        "psf": _psf(model, conditions, band, matrix, wide, p, spectrum, seeing),
    }
    kept = {name: at for name, at in model.coords.items() if set(at.dims) <= set(pixels)}
    attrs = {name: model.attrs[name] for name in ("box", "wcs", "band") if name in model.attrs}
    for name in ("altitude", "parallactic_angle"):
        attrs[name] = conditions[name].item()
    return xr.Dataset(values, kept, attrs)


def _predict_linear(
    model: xr.Dataset, band: Band, conditions: xr.Dataset, jacobian: Floats, p: LinearParameters,
    wide: int, seeing: Seeing | None,
) -> NDArray[np.float32]:  # fmt: skip
    planes = model["model"].transpose(v.SUBFILTER, v.Y, v.X).to_numpy().astype(np.float32)
    rows, columns = planes.shape[1:]
    shape = (
        fft.next_fast_len(rows + 2 * wide, real=True),
        fft.next_fast_len(columns + 2 * wide, real=True),
    )
    operator = _template_operator(shape, model, band, conditions, jacobian, p, seeing)
    return operator.predict(0, spectrum_of(planes, operator))[:rows, :columns].copy()


def _template_operator(
    shape: tuple[int, int], model: xr.Dataset, band: Band, conditions: xr.Dataset,
    jacobian: Floats, p: LinearParameters, seeing: Seeing | None,
) -> FourierOperator:  # fmt: skip
    """Return the operator of a template of a visit."""
    if seeing is None:
        return operator_of(shape, band, conditions, jacobian, p, spread_of(model, band, p))
    return fourier_operator(
        shape, band, conditions, jacobian, subfilters=p.subfilters, in_band=p.in_band,
        transfer=seeing.ratio(shape)[None], fwhm=np.array([seeing.fwhm]),
        chromatic_seeing=p.chromatic_seeing,
    )  # fmt: skip


def _check_hull(
    model: xr.Dataset, band: Band, conditions: xr.Dataset, jacobian: Floats, own: Floats
) -> None:
    used = model["mean_weight"].to_numpy() > 0 if "mean_weight" in model else slice(None)
    vectors = band_vectors(band, model[list(FIELDS)], own)[used]
    outside = distance_outside(vectors, band_vectors(band, conditions, jacobian)[0])
    if outside > OUTSIDE:
        warnings.warn(
            f"the dispersion at altitude {conditions['altitude'].item():.1f} and parallactic angle "
            f"{conditions['parallactic_angle'].item():.1f} degree is {outside:.1f} pixel outside "
            "of those of the model's visits",
            ExtrapolatedTemplateWarning,
            stacklevel=3,
        )


def _variance(
    model: xr.Dataset, band: Band, own: Floats, p: LinearParameters, seen: FourierOperator
) -> NDArray[np.float32]:
    """Return the variance of each pixel."""
    fit = fitted_description(model, band, own, p)
    levels = [template_levels(fit.basis, one, seen, total=fit.total) for one in fit.weights]
    return variance_by_level(
        levels,
        fit.weights.sum(axis=1),
        model["coverage"].transpose(v.Y, v.X).to_numpy(),
        model["noise_place"].transpose(v.Y, v.X).to_numpy(),
        model["weight_sum"].transpose(v.Y, v.X).to_numpy(),
    )


def _mask(model: xr.Dataset, seen: FourierOperator) -> xr.DataArray:
    """Return the mask of the model, with EDGE where a template lacks light."""
    mask = model[v.MASK].transpose(v.Y, v.X)
    edge = np.int32(v.plane_bits(["EDGE"], mask.attrs))
    lacking = lacking_light(seen, (mask.sizes[v.Y], mask.sizes[v.X]))
    return mask.copy(data=mask.to_numpy() | np.where(lacking, edge, np.int32(0)))


def _psf(
    model: xr.Dataset, conditions: xr.Dataset, band: Band, jacobian: Floats, reach: int,
    p: LinearParameters, spectrum: Floats | None, seeing: Seeing | None,
) -> xr.DataArray:  # fmt: skip
    """Return the PSF of a source of some spectrum, by the operator of the template."""
    relative = np.ones(p.subfilters) if spectrum is None else np.asarray(spectrum, float)
    if relative.shape != (p.subfilters,) or not relative.sum() > 0:
        raise ValueError(
            f"spectrum must be {p.subfilters} fluxes whose sum is positive, got {spectrum}"
        )
    wide = np.pad(model["psf"].to_numpy(), reach)
    planes = (relative[:, None, None] / relative.sum() * wide).astype(np.float32)
    shape = tuple(fft.next_fast_len(side + reach, real=True) for side in wide.shape)
    operator = _template_operator(
        (shape[0], shape[1]), model, band, conditions, jacobian, p, seeing
    )
    image = operator.predict(0, spectrum_of(planes, operator))[: wide.shape[0], : wide.shape[1]]
    found = image.astype(float)
    return xr.DataArray(found / found.sum(), dims=(v.PSF_Y, v.PSF_X))
