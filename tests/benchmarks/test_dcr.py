"""Sub-band models and templates beside the way of the reference: iterations of spline shifts."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import fft, ndimage

from skyloom.algorithms.dcr import (
    Band,
    dcr_shifts,
    predict_template,
    solve_dcr,
)
from skyloom.algorithms.dcr.operator import fourier_operator
from tests.algorithms.dcr.analytic import dozen, observed, scene

G = Band.from_effective("g", 476.31, 147.0)
NORTH_UP = np.diag([-0.2, 0.2])
SIDE, VISITS = 1080, 30
REFERENCE_ITERATIONS = 11
"""After which the reference stops, far from its floor."""


@pytest.fixture(scope="module")
def conditions() -> xr.Dataset:
    return dozen(np.random.default_rng(1), VISITS)


def test_one_iteration(compare, peer, conditions):
    rng = np.random.default_rng(2)
    padded = fft.next_fast_len(SIDE + 30, real=True)
    operator = fourier_operator((padded, padded), G, conditions, NORTH_UP)
    planes = np.zeros((3, padded, padded), np.float32)
    planes[:, :SIDE, :SIDE] = rng.standard_normal((3, SIDE, SIDE), dtype=np.float32)
    weight = np.ones((SIDE, SIDE), np.float32)
    shifts = dcr_shifts(G, conditions, NORTH_UP, mode="split")
    vectors = np.stack([shifts["shift_y"], shifts["shift_x"]], axis=-1)

    series = 6.0 * operator.terms.sum()  # real and imaginary parts of three planes, twice

    def ours():
        spectrum = operator.spectrum(planes)
        found = np.zeros_like(spectrum)
        for visit in range(VISITS):
            operator.add_normal(visit, spectrum, weight, found)
        return operator.planes(found)

    def moved(image, vector):
        return ndimage.shift(image, vector, order=1, mode="constant", prefilter=False)

    def by_shifts():
        """Update and metric: a template of split shifts each, and residuals moved back."""
        model = planes[:, :SIDE, :SIDE]
        total = np.zeros_like(model)
        for visit in range(VISITS):
            for _ in range(2):
                seen = sum(
                    moved(model[s], vectors[visit, s, half]) for s in range(3) for half in range(2)
                )
            for s in range(3):
                total[s] += moved(weight * seen, -vectors[visit, s].mean(axis=0))
        return total

    compare(
        "DCR: one iteration, three sub-bands",
        ours,
        size=f"{VISITS} x {SIDE}² float32",
        peers=(peer("iteration of scipy.ndimage.shift, order 1", by_shifts, 15.0, rounds=1),),
        # planes read, then read and written; one image through four halves of transforms
        moved_bytes=4.0 * VISITS * padded**2 * (3 + 2 * 3 + 2 + 3 * 2),
        multiply_adds=padded**2 * (VISITS * (2.5 * np.log2(padded**2) + 12) + series),
        rounds=3,
    )


@pytest.fixture(scope="module")
def field() -> tuple[xr.Dataset, xr.Dataset, xr.Dataset]:
    """Return ten warps of 1000² with stars of all colours, their coadd and conditions."""
    rng = np.random.default_rng(3)
    table = dozen(rng, 10)
    stars = scene(rng, 200, 40)
    places = {name: np.clip(getattr(stars, name), 24.0, 176.0) for name in ("y", "x")}
    stars = stars._replace(**places)
    part = stars.render(table, 4.0)
    warps, template = observed(np.tile(part, (1, 5, 5)), 4.0, 5.0, rng)
    return warps, template, table


def test_whole_solution(compare, field):
    warps, template, table = field
    compare(
        "DCR: whole solution, three sub-bands",
        lambda: solve_dcr(warps, table, G, template, jacobian=NORTH_UP),
        size="10 x 1000² float32",
        published_s=REFERENCE_ITERATIONS * (2.05 + 1.10),
        target=15.0,
        rounds=2,
    )


def test_matched_template(compare, field):
    warps, template, table = field
    model = solve_dcr(warps, table, G, template, jacobian=NORTH_UP).model
    visit = table.isel(visit=[4])
    compare(
        "DCR: matched template with variance and PSF",
        lambda: predict_template(model, visit),
        size="1000² float32, three sub-bands",
        published_s=0.336,
        target=5.0,
    )
