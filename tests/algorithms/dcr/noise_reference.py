"""The noise of planes and templates by numpy, level by level: what the compiled one must give."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.dcr import LinearParameters
from skyloom.algorithms.dcr.linear import prior_of
from skyloom.algorithms.dcr.operator import FourierOperator, Spectra

Floats = NDArray[np.float64]
Complex = NDArray[np.complex128]


def covariances(
    operator: FourierOperator, weights: Floats, transfer: Spectra, parameters: LinearParameters,
    adherence: float, power: Floats | None = None, total: float | None = None,
) -> Iterator[Complex]:  # fmt: skip
    """Yield the covariance of planes at each frequency, (ky, kx, subfilter, subfilter), by level.

    ``total`` is what priors are relative to, the sum of the weights if not given.
    """
    n, own = operator.subfilters, float(weights.sum())
    whole = own if total is None else total
    prior = prior_of(transfer, parameters, adherence)
    stiffness = prior.stiffness[..., None, None].astype(float)
    seen = np.array([operator.shown(visit) for visit in range(operator.visits)]).conj()
    if power is None:
        power = np.ones(seen.shape[:3])
    noise = weights[:, None, None] * power
    data = np.einsum("e,eyxs,eyxt->yxst", weights, seen, seen.conj())
    noisy = np.einsum("eyx,eyxs,eyxt->yxst", noise, seen, seen.conj())
    alike = np.einsum("eyx,eyxs->yxs", noise, seen)
    level = noise.sum(axis=0)[..., None, None]
    parts = operator.photons
    both = alike[..., :, None] * parts + parts[:, None] * alike[..., None, :].conj()
    twice = np.outer(parts, parts)
    for far in np.linspace(0.0, 1.0, 9) ** 2:
        held = parameters.taper * far + parameters.taper_floor
        fixed = stiffness * prior.matrix(parts) + held * np.eye(n)
        pull = (adherence * stiffness + held) * whole / own
        inverse = np.linalg.inv(data + whole * fixed)
        yield inverse @ (noisy + pull * both + pull**2 * level * twice) @ inverse
    yield (level / own**2 * twice).astype(complex)


def of_pixels(values: Floats) -> Floats:
    """Return the mean over all frequencies of what is real, (ky, kx of half of them, ...)."""
    both = np.concatenate([values, values[:, 1:-1]], axis=1)
    return np.asarray(both.mean(axis=(0, 1)))


def of_template(covariance: Complex, operator: FourierOperator, visit: int) -> float:
    """Return the variance of a template in one pixel."""
    seen = operator.shown(visit)
    variance = np.einsum("yxs,yxst,yxt->yx", seen, covariance, seen.conj()).real
    return float(of_pixels(variance))
