"""Covariance of warped noise, weights of kernels, seeds."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.warp import (
    kernel_weights,
    noise_seed,
    variance_of_sum,
    warp_exposure,
    warp_noise_covariance,
)
from skyloom.algorithms.warp.noise import noise_image
from tests.algorithms.warp.scenes import exposure_of, plane


def test_weights_have_the_published_sums_of_squares():
    for kernel, at_quarter, at_half in (("lanczos3", 0.8938, 0.7858), ("lanczos5", 0.9343, 0.8683)):
        squares = (kernel_weights(kernel, [0.0, 0.25, 0.5]) ** 2).sum(axis=1)
        np.testing.assert_allclose(squares, [1.0, at_quarter, at_half], atol=6e-5)


def test_weights_are_those_of_the_definition_over_their_published_sums():
    for half, sums in ((3, (0.996972, 0.994299)), (5, (0.999334, 0.998746))):
        for fraction, total in zip((0.25, 0.5), sums, strict=True):
            distance = np.arange(1 - half, half + 1) - fraction
            raw = np.sinc(distance) * np.sinc(distance / half)
            assert raw.sum() == pytest.approx(total, abs=5e-7)
            np.testing.assert_allclose(
                kernel_weights(f"lanczos{half}", fraction), raw / raw.sum(), atol=1e-15
            )


@pytest.mark.parametrize(
    ("kernel", "expected"), [("lanczos3", 0.799), ("lanczos5", 0.873), ("bilinear", 0.4447)]
)
def test_the_mean_variance_is_as_published(kernel, expected):
    covariance = warp_noise_covariance(kernel)
    assert float(covariance.sel(lag_y=0, lag_x=0)) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3", "lanczos5"])
def test_the_covariances_of_all_lags_sum_to_one(kernel):
    # a constant stays a constant, so that the noise at wavelength infinity stays
    taps = kernel_weights(kernel, 0.0).size
    covariance = warp_noise_covariance(kernel, size=2 * taps + 1)
    assert float(covariance.sum()) == pytest.approx(1.0, abs=1e-9)
    np.testing.assert_allclose(covariance, covariance.values[::-1, ::-1], atol=1e-14)
    np.testing.assert_allclose(covariance, covariance.values.T, atol=1e-14)


@pytest.mark.parametrize(("turn", "scale"), [(3.0, 0.2), (30.0, 0.25)])
@pytest.mark.parametrize("kernel", ["bilinear", "lanczos3"])
def test_sums_over_boxes_scatter_as_the_covariance_says(turn, scale, kernel):
    rng = np.random.default_rng(5)
    source, target = plane(center=(500.0, 500.0)), plane(turn, scale, center=(400.0, 400.0))
    sums, single, count = [], [], 10
    for _ in range(4):
        exposure = exposure_of(rng.standard_normal((1000, 1000)))
        warp = warp_exposure(exposure, source, target, (150, 650, 150, 650), kernel=kernel)
        image = warp["image"].values.astype(float)
        single.append(image.var())
        sums.append(image.reshape(50, count, 50, count).sum(axis=(1, 3)).ravel())
    covariance = warp_noise_covariance(kernel, matrix=warp.attrs["matrix"])
    expected = variance_of_sum(covariance, (count, count))
    # 10 000 sums: their variance is known to 1.4 per cent
    assert np.var(sums) == pytest.approx(expected, rel=0.045)
    assert np.mean(single) == pytest.approx(float(covariance.sel(lag_y=0, lag_x=0)), rel=0.01)
    # the variance plane alone is far off
    assert abs(expected / (np.mean(single) * count**2) - 1) > 0.15


def test_the_matrix_of_a_warp_is_the_turn_and_scale_between_the_grids():
    warp = warp_exposure(exposure_of(np.ones((90, 90))), plane(), plane(30, 0.1), (0, 90, 0, 90))
    turn = np.deg2rad(30)
    expected = 0.5 * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = np.array(warp.attrs["matrix"])
    assert min(abs(found - expected).max(), abs(found - expected.T).max()) < 1e-5


def test_seeds_fit_32_bits_and_differ():
    seeds = {
        noise_seed(visit, detector, number)
        for visit in (1, 12, 112)
        for detector in ("S1", "1", 2)
        for number in range(3)
    }
    assert len(seeds) == 27
    assert all(0 <= seed < 2**32 for seed in seeds)
    # the same in every version and process
    assert noise_seed(12, "S1", 0) == 298541258


def test_noise_has_the_median_or_each_pixels_own_variance():
    variance = np.full((200, 200), 4.0)
    variance[:, 100:] = 25.0
    variance[:, 0], variance[:, 1] = np.nan, -1.0
    noise = noise_image(variance, 1)
    assert noise.std() == pytest.approx(5.0, rel=0.03)
    own = noise_image(variance, 1, per_pixel=True)
    assert np.isnan(own[:, :2]).all()
    assert own[:, 2:100].std() == pytest.approx(2.0, rel=0.03)
    assert own[:, 100:].std() == pytest.approx(5.0, rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({"kernel": "cubic"}, ConfigurationError, "kernel must be one of"),
        ({"size": 4}, ValueError, "odd"),
        ({"matrix": np.zeros((2, 2))}, GeometryError, "regular"),
        ({"matrix": np.eye(3)}, GeometryError, "2 x 2"),
    ],
)
def test_misuse_is_named(arguments, error, text):
    with pytest.raises(error, match=text):
        warp_noise_covariance(**arguments)
