"""Optimal coadds: what they detect, how white they are, and that they lose nothing."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.signal import fftconvolve

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.coadd import coadd, optimal_coadd
from skyloom.algorithms.errors import DroppedInputWarning
from skyloom.algorithms.psf import gaussian_psf

SHAPE = (180, 200)
WIDTHS = (2.5, 4.0, 6.0, 3.5)
NOISE = np.array([2.0, 1.0, 1.5, 3.0])
VISITS = [11, 12, 13, 14]
FLUX, STAR = 60.0, (90, 120)
DIMS = ("visit", "y", "x")


def psf_of(widths=WIDTHS, visits=VISITS, size=31) -> xr.DataArray:
    stamps = [gaussian_psf(width, size=size) for width in widths]
    return xr.concat(stamps, dim="visit").assign_coords(visit=visits)


def visits_of(rng, flux=FLUX, noise=NOISE, psf=None, scales=None) -> xr.Dataset:
    """Return visits with one star and white noise."""
    psf = psf_of() if psf is None else psf
    number = len(noise)
    scales = np.ones(number) if scales is None else scales
    image = noise[:, None, None] * rng.standard_normal((number, *SHAPE))
    y, x, half = *STAR, psf.shape[1] // 2
    part = np.s_[:, y - half : y + half + 1, x - half : x + half + 1]
    image[part] += flux * scales[:, None, None] * psf.values
    spread = np.broadcast_to(noise[:, None, None] ** 2, image.shape)
    return xr.Dataset(
        {
            "image": (DIMS, image.astype(np.float32), {"units": "nJy"}),
            "variance": (DIMS, spread.astype(np.float32)),
            "mask": (DIMS, np.zeros(image.shape, np.int32), v.mask_attributes()),
        },
        coords={"visit": psf["visit"].values},
    )


@pytest.fixture(scope="module")
def made() -> xr.Dataset:
    return optimal_coadd(visits_of(np.random.default_rng(1)), psf_of())


def inner(image: xr.DataArray) -> np.ndarray:
    """Return pixels that no kernel reaches from outside, without the star."""
    values = image.values[20:-20, 20:-20].astype(float)
    y, x = np.indices(values.shape)
    return values[np.hypot(y + 20 - STAR[0], x + 20 - STAR[1]) > 25]


def test_a_star_is_as_significant_as_all_visits_together():
    psf = psf_of()
    expected = FLUX * np.sqrt(((psf**2).sum(("psf_y", "psf_x")).values / NOISE**2).sum())
    scores, fluxes = [], []
    for seed in range(30):
        made = optimal_coadd(visits_of(np.random.default_rng(seed)), psf)
        scores.append(float(made["score"][STAR]))
        fluxes.append(float(made["detection"][STAR] * made["flux_sigma"] ** 2))
    assert float(made["flux_sigma"]) == pytest.approx(FLUX / expected, rel=1e-6)
    assert np.mean(scores) == pytest.approx(expected, abs=4.0 / np.sqrt(30))
    assert np.mean(fluxes) == pytest.approx(FLUX, abs=4.0 * FLUX / expected / np.sqrt(30))
    assert np.std(scores) == pytest.approx(1.0, abs=0.4)


def test_the_score_is_in_standard_deviations_and_the_proper_image_is_white(made):
    assert inner(made["score"]).std() == pytest.approx(1.0, abs=0.05)
    image = made["image"].values.astype(float) / np.sqrt(made["variance"].values)
    assert inner(made["image"]).std() == pytest.approx(
        float(np.sqrt(made["variance"][0, 0])), rel=0.02
    )
    part = image[25:-25, 25:85]
    for dy, dx in ((0, 1), (1, 0), (1, 1), (0, 2), (3, 0)):
        shifted = image[25 + dy : image.shape[0] - 25 + dy, 25 + dx : 85 + dx]
        assert abs((part * shifted).mean()) < 4.0 / np.sqrt(part.size)
    assert float(made["variance"][0, 0]) == pytest.approx(1.0 / (1.0 / NOISE**2).sum(), rel=1e-6)


def test_the_proper_image_filtered_by_its_psf_is_the_detection_image(made):
    again = fftconvolve(made["image"].values.astype(float), made["psf"].values, mode="same")
    again = again / made["variance"].values[0, 0]
    apart = (again - made["detection"].values)[20:-20, 20:-20]
    assert np.abs(apart).max() < 2e-3 * np.abs(made["detection"].values).max()
    assert float(made["psf"].sum()) == pytest.approx(1.0, abs=1e-4)
    assert np.unravel_index(made["psf"].values.argmax(), (31, 31)) == (15, 15)


def test_a_single_visit_is_its_own_proper_image():
    one = visits_of(np.random.default_rng(2)).isel(visit=[1])
    made = optimal_coadd(one, psf_of())
    np.testing.assert_allclose(made["image"], one["image"][0], atol=1e-4)
    np.testing.assert_allclose(made["psf"], psf_of()[1], atol=1e-6)


def test_it_detects_better_than_the_mean_filtered_by_any_gaussian():
    psf = psf_of()
    quiet = visits_of(np.random.default_rng(3), noise=np.full(4, 1e-4))
    quiet["variance"].values[:] = (NOISE**2)[:, None, None]
    signal = coadd(quiet)["image"].values.astype(float)
    variance = 1.0 / (1.0 / NOISE**2).sum()
    best = 0.0
    for width in np.arange(2.0, 7.0, 0.25):
        kernel = gaussian_psf(width, size=31).values
        peak = fftconvolve(signal, kernel, mode="same")[STAR]
        best = max(best, peak / np.sqrt(variance * (kernel**2).sum()))
    optimal = float(optimal_coadd(quiet, psf)["score"][STAR])
    assert optimal > 1.03 * best


def test_flux_scales_bring_visits_of_different_throughput_together():
    scales = np.array([1.0, 0.5, 2.0, 0.8])
    quiet = np.full(4, 1e-4)
    plain = visits_of(np.random.default_rng(4), noise=quiet)
    scaled = visits_of(np.random.default_rng(4), noise=quiet, scales=scales)
    for warps, factors in ((plain, np.ones(4)), (scaled, scales)):
        warps["variance"].values[:] = (NOISE * factors)[:, None, None] ** 2
    expected = optimal_coadd(plain, psf_of())
    made = optimal_coadd(scaled, psf_of(), flux_scales=scales)
    for name in ("image", "score", "variance"):
        np.testing.assert_allclose(made[name], expected[name], atol=1e-3)
    turned = optimal_coadd(
        [scaled.isel(visit=i) for i in (3, 2, 1, 0)], psf_of(), flux_scales=scales[::-1]
    )
    assert turned.identical(made)


def test_missing_values_are_those_of_the_others_and_told():
    warps = visits_of(np.random.default_rng(5))
    whole = optimal_coadd(warps, psf_of())
    warps["image"].values[1, 50, 60] = np.nan
    warps["mask"].values[2, 50, 61] = v.MASK_PLANES["BAD"]
    warps["image"].values[:, 150, 20] = np.nan
    made = optimal_coadd(warps, psf_of())
    assert np.isfinite(made["image"].values[:140]).all()
    assert abs(float(made["score"][50, 60] - whole["score"][50, 60])) < 2.0
    mask = made["mask"].values
    assert mask[50, 60] == mask[50, 75] == v.MASK_PLANES["INEXACT_PSF"]
    assert mask[100, 100] == 0
    assert mask[150, 20] & v.MASK_PLANES["NO_DATA"]
    assert np.isnan(made["image"].values[150, 20])
    assert np.isposinf(made["variance"].values[150, 20])
    assert made["n_image"].values[50, 60:62].tolist() == [3, 3]


def test_containers_and_chunks_make_no_difference_and_inputs_stay():
    warps, psf = visits_of(np.random.default_rng(6)), psf_of()
    copies = warps.copy(deep=True), psf.copy(deep=True)
    expected = optimal_coadd(warps, psf)
    assert optimal_coadd(warps.chunk(visit=1, y=50), psf).identical(expected)
    assert optimal_coadd(warps.isel(visit=[2, 0, 3, 1]), psf[::-1]).identical(expected)
    assert warps.identical(copies[0])
    assert psf.identical(copies[1])
    useless = warps.copy(deep=True)
    useless["image"].values[3] = np.nan
    with pytest.warns(DroppedInputWarning, match="14: NO_DATA"):
        found = optimal_coadd(useless, psf)
    three = optimal_coadd(warps.isel(visit=slice(0, 3)), psf)
    np.testing.assert_array_equal(found["score"], three["score"])


def test_point_spread_functions_that_do_not_fit_are_refused():
    warps = visits_of(np.random.default_rng(7))
    psf = psf_of()
    with pytest.raises(ValueError, match="odd and within"):
        optimal_coadd(warps, psf.isel(psf_y=slice(0, 30)))
    with pytest.raises(ValueError, match="odd and within"):
        optimal_coadd(warps.isel(y=slice(0, 20)), psf)
    with pytest.raises(KeyError, match=r"psf lacks visits \[14\]"):
        optimal_coadd(warps, psf[:3])
    with pytest.raises(KeyError, match="coordinate visit"):
        optimal_coadd(warps, psf.drop_vars("visit"))
    with pytest.raises(ValueError, match="needs dimensions"):
        optimal_coadd(warps, psf.rename(psf_y="y"))
    with pytest.raises(ValueError, match="positive sum"):
        optimal_coadd(warps, 0.0 * psf)
    with pytest.raises(ValueError, match="flux_scales must be positive"):
        optimal_coadd(warps, psf, flux_scales=[1.0, 1.0, 0.0, 1.0])
