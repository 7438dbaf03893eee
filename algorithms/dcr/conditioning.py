"""How evenly the data alone determine the sub-bands, at the scale of a star."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms.dcr.normal import normal_matrices
from skyloom.algorithms.dcr.operator import FourierOperator

__all__ = ["condition_number"]

Floats = NDArray[np.float64]
LARGEST: Final = 1e6
"""Condition numbers that can be told from infinite ones: visits are known to 5e-7."""
SHARPEST: Final = 0.4
"""Largest frequency (1/pixel) that is seen whole."""


def condition_number(operator: FourierOperator, weights: Floats, fwhm: float) -> float:
    r"""Return how much better visits determine their best known mix of sub-bands than their worst.

    The condition number of what the data say of planes, :math:`\sum_e w_e \bar a_e a_e^T`, without
    any prior, at a wavelength of twice the FWHM: the median over its directions. It is 1 if
    all mixes are equally well known, and infinite if the visits leave one open. At long waves it is
    infinite for any visits, since those do not move.

    Parameters
    ----------
    operator : FourierOperator
        Over an image of some ten FWHM or more.
    weights : array, (visit,)
        Mean weight of each visit, one over variance.
    fwhm : float, pixel
        Of the model's PSF.

    Examples
    --------
    Three visits, two sub-bands, of which one is displaced by 0, 4 and -4 pixels along y:

    >>> from skyloom.algorithms.dcr.operator_kernels import STEP
    >>> ky = 2.0 * np.pi * np.fft.fftfreq(96)
    >>> series = np.zeros((3, 96, 2, 2, STEP), np.float32)
    >>> series[:, :, 0, 0, 0] = 1.0
    >>> for visit, shift in enumerate((0.0, 4.0, -4.0)):
    ...     series[visit, :, 1, :, 0] = np.stack([np.cos(shift * ky), -np.sin(shift * ky)], -1)
    >>> basis = np.zeros((STEP, 49), np.float32)
    >>> basis[0] = 1.0
    >>> nothing, terms = np.empty((0, 0, 0), np.complex64), np.full(3, STEP)
    >>> operator = FourierOperator((96, 96), series, terms, basis, nothing, np.full(2, 0.5))
    >>> round(condition_number(operator, np.ones(3), 4.0), 1)
    2.0
    >>> condition_number(operator, np.array([1.0, 0.0, 0.0]), 4.0)
    inf
    """
    if not weights.sum() > 0:
        return np.inf
    ky, kx = np.fft.fftfreq(operator.shape[0])[:, None], np.fft.rfftfreq(operator.shape[1])
    step = 1.0 / min(operator.shape)
    wanted = np.clip(1.0 / (2.0 * fwhm), step, SHARPEST)
    ring = np.abs(np.hypot(ky, kx) - wanted) <= step / 2.0
    data = normal_matrices(operator, weights)[ring].astype(np.complex128)
    values = np.linalg.eigvalsh(data)
    known = values[:, 0] * LARGEST > values[:, -1]
    found = np.full(len(values), np.inf)
    np.divide(values[:, -1], values[:, 0], out=found, where=known)
    return float(np.median(found))
