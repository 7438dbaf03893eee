"""The exact model against charge that is collected step by step and moves pixel boundaries."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.fft
from numpy.typing import NDArray

from skyloom.algorithms.photon_transfer.lattice import even_sum
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.simulate import TYPICAL_A

Floats = NDArray[np.float64]

SIDE, STEPS, FLATS, SIGNAL = 256, 200, 16, 8e4
LAGS = ((0, 0), (1, 0), (0, 1), (1, 1))
CARRIED = 0.8
"""How much of a covariance of the white noise is found again in that of the charge, about."""


def conserving_a() -> Floats:
    """Return coefficients whose sum over all lags is zero, so that no charge is lost."""
    a = np.array(TYPICAL_A)
    a[0, 0] -= even_sum(a)
    return a


def covariances(image: Floats) -> Floats:
    image = image - image.mean()
    return np.array([np.mean(image * np.roll(image, lag, (0, 1))) for lag in LAGS])


@pytest.fixture(scope="module")
def collected() -> tuple[Floats, Floats]:
    """Return covariances and their errors of flats that were collected in small steps.

    In each step a pixel collects light in proportion to its area, which the charge around it has
    changed. The white noise alone has covariances that are known; taking them out leaves a tenth
    of the scatter.
    """
    a, step = conserving_a(), SIGNAL / STEPS
    kernel = np.zeros((SIDE, SIDE))
    for y in range(1 - len(a), len(a)):
        for x in range(1 - len(a), len(a)):
            kernel[y, x] = a[abs(y), abs(x)]
    transfer = scipy.fft.rfft2(kernel)
    rows = []
    for seed in range(FLATS):
        generator = np.random.default_rng(seed)
        charge, white = np.zeros((2, SIDE, SIDE))
        for _ in range(STEPS):
            area = 1 + scipy.fft.irfft2(scipy.fft.rfft2(charge) * transfer, charge.shape)
            noise = np.sqrt(step) * generator.standard_normal(charge.shape)
            # hundreds of charges a step: Poisson noise is Gaussian, its variance their number
            charge += step * area + np.sqrt(area) * noise
            white += noise
        excess = covariances(white) - [SIGNAL, 0.0, 0.0, 0.0]
        rows.append(covariances(charge) - CARRIED * excess)
    values = np.array(rows)
    return values.mean(axis=0), values.std(axis=0, ddof=1) / np.sqrt(FLATS)


@pytest.mark.parametrize(
    ("index", "tolerance"),
    [(0, 0.003), (1, 0.02), (2, 0.03), (3, 0.04)],
    ids=[str(k) for k in LAGS],
)
def test_the_exact_model_has_the_covariances_of_collected_charge(
    collected: tuple[Floats, Floats], index: int, tolerance: float
) -> None:
    found, error = collected[0][index], collected[1][index]
    lag_y, lag_x = LAGS[index]
    expected = model_covariance(conserving_a(), 1.0, 0.0, [SIGNAL])[0, lag_y, lag_x]
    assert error < tolerance * expected / 2.5  # or the comparison would say nothing
    assert found == pytest.approx(expected, rel=tolerance)


def test_without_the_reaction_of_the_boundaries_the_variance_would_be_far_off(
    collected: tuple[Floats, Floats],
) -> None:
    # the first order in the signal alone misses what the model adds by many errors
    a = conserving_a()
    first_order = SIGNAL + a[0, 0] * SIGNAL**2
    assert collected[0][0] - first_order > 20 * collected[1][0]
    assert a[1, 0] * SIGNAL**2 - collected[0][1] > 20 * collected[1][1]
