"""The brighter-fatter kernel: published numbers, exact identities, and images set right."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.detrend.brighter_fatter import (
    CorrectionParameters,
    correct_brighter_fatter,
)
from skyloom.algorithms.photon_transfer.kernel import (
    KernelParameters,
    brighter_fatter_kernel,
    full_prekernel,
    solve_kernel,
)
from skyloom.algorithms.photon_transfer.models import model_covariance
from skyloom.algorithms.simulate import TYPICAL_A, correlated_field, flat_covariance
from skyloom.algorithms.vocabulary import AmplifierFlag

# quadrants of the 7 x 7 kernels as published, row = x from the corner, column = y
WITHOUT_ZERO_SUM = """
4.88348887e-08 9.42026776e-08 1.24047315e-07 1.31474000e-07
1.01136877e-07 2.03928508e-07 2.70512582e-07 2.77801372e-07
1.51784115e-07 3.28428909e-07 4.44123665e-07 3.85123870e-07
1.77570668e-07 4.06714446e-07 5.78099494e-07 -5.42128333e-08
"""
WITH_ZERO_SUM = """
9.65272104e-10 -1.53655559e-09 -1.42426884e-08 -2.80913882e-08
5.39764401e-09 7.13119391e-09 -2.73428098e-08 -8.38801759e-08
1.34941100e-08 3.05735164e-08 -5.05290397e-08 -3.06326147e-07
1.80052797e-08 4.50328986e-08 -1.13350524e-07 -1.46902595e-06
"""


def table(text: str) -> np.ndarray:
    return np.array(text.split(), dtype=float).reshape(4, 4)


def published_case(gain: float = 1.0) -> xr.Dataset:
    """Ten pairs whose covariances are fixed fractions of 1 % of the mean; the first unused."""
    mean = np.arange(1000.0, 10001.0, 1000.0)
    # [lag_x, lag_y] as the case is published
    share = np.array([[0.0, 0.5, 0.1], [0.2, 0.1, 0.05], [0.025, 0.015, 0.01]])
    covariance = 0.01 * mean[:, None, None] * share
    covariance[:, 0, 0] = 0.99 * mean
    lags = ("pair", "amp", "lag_x", "lag_y")
    return xr.Dataset(
        {
            "mean": (("pair", "amp"), mean[:, None] / gain),
            "covariance": (lags, covariance[:, None] / gain**2),
            "covariance_model": (lags, covariance[:, None] / gain**2),
            "used": (("pair", "amp"), (mean > 1000)[:, None]),
            "gain": ("amp", [gain]),
            "a": (("amp", "lag_y", "lag_x"), -np.eye(3)[None] * 1e-7),
        },
        coords={"amp": ["C00"]},
    )


def kernel_of(ptc: xr.Dataset, **options: object) -> np.ndarray:
    parameters = KernelParameters.model_validate(options)
    found = brighter_fatter_kernel(ptc, parameters=parameters)
    return found.kernel.isel(amp=0).transpose("kernel_x", "kernel_y").to_numpy()


def typical(lags: int = 5) -> np.ndarray:
    return np.array(TYPICAL_A)[:lags, :lags]


@pytest.mark.parametrize("gain", [1.0, 0.7])
@pytest.mark.parametrize(
    ("zero_sum", "expected"), [(False, WITHOUT_ZERO_SUM), (True, WITH_ZERO_SUM)]
)
def test_the_published_case_is_met_to_all_digits(
    zero_sum: bool, expected: str, gain: float
) -> None:
    kernel = kernel_of(published_case(gain), source="average", zero_sum=zero_sum)
    np.testing.assert_allclose(kernel[:4, :4], table(expected), rtol=1e-6, atol=5e-18)
    np.testing.assert_array_equal(np.round(kernel, 20), np.round(kernel[::-1, ::-1], 20))


def test_the_average_prekernel_is_the_published_one() -> None:
    kernel = kernel_of(published_case(), source="average", zero_sum=False)
    padded = np.pad(kernel, 1)
    laplacian = sum(np.roll(padded, step, axis) for step in (1, -1) for axis in (0, 1)) - 4 * padded
    source = laplacian[1:-1, 1:-1]
    assert source[3, 3] == pytest.approx(2.14329806e-6, rel=1e-8)
    assert source.sum() == pytest.approx(-2.89345238e-6, rel=1e-8)


@pytest.mark.parametrize("side", [5, 9, 21])
def test_the_laplacian_of_the_kernel_is_the_prekernel(side: int) -> None:
    source = np.random.default_rng(side).normal(0, 1e-6, (side, side))
    padded = np.pad(solve_kernel(source), 1)
    laplacian = (
        padded[2:, 1:-1]
        + padded[:-2, 1:-1]
        + padded[1:-1, 2:]
        + padded[1:-1, :-2]
        - 4 * padded[1:-1, 1:-1]
    )
    assert np.abs(laplacian - source).max() < 1e-15


def test_exchanging_the_axes_of_the_lags_exchanges_those_of_the_kernel() -> None:
    ptc = published_case()
    swapped = ptc.rename(lag_x="lag_y", lag_y="lag_x")
    for source in ("average", "model"):
        one, other = kernel_of(ptc, source=source), kernel_of(swapped, source=source)
        np.testing.assert_allclose(one, other.T, rtol=0, atol=1e-20)
        assert np.abs(one - one.T).max() > 1e-8


def test_every_source_gives_the_kernel_of_data_that_follow_the_quadratic_law() -> None:
    a = typical()
    mean = np.linspace(2e3, 8e4, 30)
    gain, noise = 1.5, 7.0
    electron = gain * mean
    covariance = electron[:, None, None] ** 2 * a
    covariance[:, 0, 0] += electron + noise**2
    variables = ("pair", "amp", "lag_y", "lag_x")
    ptc = xr.Dataset(
        {
            "mean": (("pair", "amp"), mean[:, None]),
            "covariance": (variables, covariance[:, None] / gain**2),
            "covariance_model": (variables, covariance[:, None] / gain**2),
            "gain": ("amp", [gain]),
            "noise": ("amp", [noise]),
            "a": (("amp", "lag_y", "lag_x"), a[None]),
        },
        coords={"amp": ["C00"]},
    )
    expected = solve_kernel(full_prekernel(-a))
    for source in ("a_matrix", "average", "quadratic", "model"):
        found = kernel_of(ptc, source=source).T
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


def test_the_robust_slope_does_not_see_a_few_wild_pairs() -> None:
    ptc = published_case().drop_vars("used")
    electron = ptc["mean"].to_numpy()[:, 0]
    covariance = electron[:, None, None, None] ** 2 * typical(3)[None, None]
    covariance[:, 0, 0, 0] += electron
    ptc["covariance"] = (("pair", "amp", "lag_y", "lag_x"), covariance)
    clean = kernel_of(ptc, source="quadratic")
    covariance[4] *= 3
    wild = kernel_of(ptc.assign(covariance=(ptc.covariance.dims, covariance)), source="quadratic")
    assert np.abs(wild - clean).max() < 1e-3 * np.abs(clean).max()


def test_a_pair_above_poisson_noise_or_without_negative_lobes_is_left_out() -> None:
    ptc = published_case()
    expected = kernel_of(ptc, source="average")
    covariance = ptc.covariance.copy(deep=True)
    covariance[3, 0, 0, 0] = 1.2 * ptc["mean"][3, 0]
    covariance[4] = -np.abs(covariance[4])
    covariance[4, 0, 0, 0] = 0.5 * ptc["mean"][4, 0]
    left_out = ptc.used.copy(deep=True)
    left_out[3:5] = False
    found = kernel_of(ptc.assign(covariance=covariance), source="average")
    np.testing.assert_array_equal(found, kernel_of(ptc.assign(used=left_out), source="average"))
    assert np.abs(found - expected).max() > 1e-9


def test_the_power_law_tail_adds_its_integral_to_the_sum() -> None:
    index = np.hypot(*np.meshgrid(np.arange(12), np.arange(12)))
    slope, radius, amplitude = 1.35, 6.0, 3e-8
    quadrant = -amplitude * np.where(index > 0, index, 1.0) ** (-2 * slope)
    quadrant[0, 0] = 2e-6
    full = full_prekernel(quadrant, tail_radius=radius, tail_slope=slope)
    index = np.abs(np.arange(-12, 13))
    inside = np.hypot(index[:, None], index) <= radius
    center = full[12, 12]
    measured = full[inside].sum() - center + 2e-6
    tail = -amplitude * 2 * np.pi * radius ** (2 - 2 * slope) / (2 * slope - 2)
    assert center == pytest.approx(2e-6 - measured - tail, rel=1e-12)
    # the integral stands for the sum over all lags beyond
    far = np.hypot(*np.meshgrid(np.arange(-2000, 2001), np.arange(-2000, 2001)))
    beyond = -amplitude * (far[(far > radius) & (far <= 2000)] ** (-2 * slope)).sum()
    assert tail == pytest.approx(beyond, rel=0.05)


def test_lags_that_were_not_fitted_count_as_zero() -> None:
    a = np.full((1, 5, 5), np.nan)
    a[0, :3, :3] = typical(3)
    ptc = xr.Dataset(
        {"gain": ("amp", [1.5]), "a": (("amp", "lag_y", "lag_x"), a)}, coords={"amp": ["C00"]}
    )
    found = brighter_fatter_kernel(ptc)
    expected = solve_kernel(full_prekernel(-np.pad(typical(3), (0, 2))))
    np.testing.assert_array_equal(found.kernel[0], expected)
    assert bool(found.kernel_valid[0])


def test_bad_amplifiers_give_no_kernel_and_do_not_spoil_the_detector() -> None:
    a = np.stack([typical()] * 5)
    a[3, 1, 1] = np.nan
    a[4] = -a[4]
    ptc = xr.Dataset(
        {
            "gain": ("amp", [1.5, -1.0, 1.4, 1.3, 1.5]),
            "a": (("amp", "lag_y", "lag_x"), a),
            "amp_flag": ("amp", [0, 0, int(AmplifierFlag.BAD), 0, 0]),
        },
        coords={"amp": list("ABCDE")},
    )
    before = ptc.copy(deep=True)
    found = brighter_fatter_kernel(ptc)
    xr.testing.assert_identical(ptc, before)
    assert found.kernel_valid.to_numpy().tolist() == [True, False, False, False, False]
    assert not found.kernel.sel(amp=["B", "C", "D"]).any()
    np.testing.assert_array_equal(found.detector_kernel, found.kernel.sel(amp="A"))
    assert found.kernel.attrs["units"] == "1/electron"


def test_what_is_missing_is_named() -> None:
    with pytest.raises(KeyError, match="covariance, which source 'average' needs"):
        brighter_fatter_kernel(
            published_case().drop_vars("covariance"), parameters=KernelParameters(source="average")
        )
    with pytest.raises(ValueError, match="square of 2 or more"):
        brighter_fatter_kernel(published_case().isel(lag_x=[0, 1]))


def test_the_correction_makes_flats_white_again() -> None:
    electrons = 3e4
    a = typical()
    a[0, 0] -= a[0, 0] + 4 * a[1:, 1:].sum() + 2 * (a[0, 1:].sum() + a[1:, 0].sum())
    covariance = flat_covariance(a, electrons)
    kernel = xr.DataArray(solve_kernel(full_prekernel(-a)), dims=("kernel_y", "kernel_x"))
    rng = np.random.default_rng(5)
    before, after = [], []
    for _ in range(12):
        flat = electrons + correlated_field(covariance, (400, 400), rng)
        image = xr.DataArray(flat, dims=("y", "x"), attrs={"units": "electron"})
        fixed = correct_brighter_fatter(image, kernel).image.to_numpy()
        for values, out in ((flat, before), (fixed, after)):
            d = values - values.mean()
            out.append([(d * d).mean(), (d[1:] * d[:-1]).mean(), (d[:, 1:] * d[:, :-1]).mean()])
    was, now = np.mean(before, axis=0) / electrons, np.mean(after, axis=0) / electrons
    sigma = 1 / np.sqrt(12 * 400 * 400)
    assert was[0] < 0.92
    assert was[1] > 0.01
    # what remains is of second order in a times the signal, 0.1 squared
    assert abs(now[0] - 1) < 0.01 + 4 * sigma * np.sqrt(2)
    assert abs(now[1]) < 0.1 * was[1] + 4 * sigma
    assert abs(now[2]) < 0.1 * was[2] + 4 * sigma


def star(dtype: type = np.float32) -> xr.DataArray:
    y, x = np.indices((81, 73))
    values = 1e5 * np.exp(-((y - 40) ** 2 + (x - 36) ** 2) / (2 * 2.0**2)) + 200
    return xr.DataArray(values.astype(dtype), dims=("y", "x"), attrs={"units": "electron"})


def typical_kernel() -> xr.DataArray:
    kernel = solve_kernel(full_prekernel(-typical()))
    return xr.DataArray(kernel, dims=("kernel_y", "kernel_x"))


def test_charge_is_conserved_and_a_star_becomes_narrower() -> None:
    image = star(np.float64)
    found = correct_brighter_fatter(image, typical_kernel())
    assert float(found.image.sum()) == pytest.approx(float(image.sum()), rel=1e-13)
    assert float(found.image.max()) > 1.01 * float(image.max())
    assert float(found.change) < 1e-3
    assert int(found.iterations) < 20


def test_a_flat_image_is_left_alone_up_to_its_border() -> None:
    image = xr.full_like(star(), 5e4)
    found = correct_brighter_fatter(image, typical_kernel())
    np.testing.assert_allclose(found.image, 5e4, rtol=1e-6)


def test_bad_pixels_stay_bad_and_let_nothing_through() -> None:
    image = star(np.float64)
    image[38:43, 36] = np.nan
    found = correct_brighter_fatter(image, typical_kernel()).image
    np.testing.assert_array_equal(np.isnan(found), np.isnan(image))
    assert float(found.sum()) == pytest.approx(float(image.sum()), rel=1e-13)
    hopeless = correct_brighter_fatter(xr.full_like(image, np.nan), typical_kernel())
    assert np.isnan(hopeless.image).all()


def test_stacks_lazy_and_eager_agree_bit_for_bit() -> None:
    images = xr.concat([star(), 0.5 * star()], dim="exposure", combine_attrs="override")
    images.attrs["units"] = "electron"
    before = images.copy(deep=True)
    eager = correct_brighter_fatter(images, typical_kernel())
    for chunks in ({"exposure": 1}, {"y": 30, "x": 50}):
        lazy = correct_brighter_fatter(images.chunk(chunks), typical_kernel().chunk(kernel_y=4))
        assert all(variable.chunks is not None for variable in lazy.values())
        xr.testing.assert_identical(eager, lazy.compute())
    xr.testing.assert_identical(images, before)
    assert eager.image.dtype == np.float32
    assert eager.image.dims == ("exposure", "y", "x")


def test_misuse_of_the_correction_is_named() -> None:
    with pytest.raises(ValueError, match=r"units 'adu', needs 'electron'.*odd sides"):
        correct_brighter_fatter(star().assign_attrs(units="adu"), typical_kernel()[:-1])
    stopped = correct_brighter_fatter(
        star(), typical_kernel(), parameters=CorrectionParameters(iterations=1)
    )
    assert float(stopped.change) > 1e-3


def test_the_model_source_takes_the_pair_nearest_its_signal() -> None:
    a = typical()
    mean = np.array([1e4, 2.4e4, 6e4])
    model = model_covariance(a, 1.0, 0.0, mean)
    ptc = xr.Dataset(
        {
            "mean": (("pair", "amp"), mean[:, None]),
            "covariance_model": (("pair", "amp", "lag_y", "lag_x"), model[:, None]),
            "gain": ("amp", [1.0]),
        },
        coords={"amp": ["C00"]},
    )
    source = -model[1].copy()
    source[0, 0] += 2.4e4
    expected = solve_kernel(full_prekernel(source / 2.4e4**2))
    np.testing.assert_allclose(kernel_of(ptc, source="model").T, expected, rtol=0, atol=1e-18)
