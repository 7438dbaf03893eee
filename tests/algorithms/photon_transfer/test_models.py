"""Models of the covariances are held to identities, independent algebra and stated values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.integrate import solve_ivp
from scipy.signal import convolve2d

from skyloom.algorithms.photon_transfer.lattice import (
    convolution_matrices,
    even_sum,
    from_modes,
    to_modes,
)
from skyloom.algorithms.photon_transfer.models import (
    MODELS,
    MODELS_OF_VARIANCE,
    MODELS_WITH_B,
    evaluate_model,
    model_covariance,
    model_jacobian,
)
from skyloom.algorithms.photon_transfer.modes import growth, growth_slope, mode_covariance

Floats = NDArray[np.float64]

REFERENCE = json.loads(
    (Path(__file__).parents[2] / "data" / "photon_transfer_reference.json").read_text()
)
A = np.array(REFERENCE["a_lag_x_lag_y"]).T
C = A * 1e-6
COVARIANCE_MODELS = tuple(model for model in MODELS if model not in MODELS_OF_VARIANCE)


def drift(model: str, scale: float = 1.0) -> Floats | None:
    return scale * C if model in MODELS_WITH_B else None


def symmetrised(quadrant: Floats) -> Floats:
    """Return the (2 r - 1)^2 array of all images, by flipping."""
    half = np.concatenate([quadrant[:0:-1], quadrant])
    return np.concatenate([half[:, :0:-1], half], axis=1)


@pytest.mark.parametrize(
    ("signal", "variance", "parallel", "serial"),
    [
        (1e4, 0.96784, 3.9938e-7, 1.6931e-7),
        (3e4, 0.90774, 3.6844e-7, 1.5850e-7),
        (5e4, 0.85281, 3.4032e-7, 1.4852e-7),
        (1e5, 0.73487, 2.8054e-7, 1.2672e-7),
    ],
)
def test_the_exact_model_has_the_stated_values(
    signal: float, variance: float, parallel: float, serial: float
) -> None:
    found = model_covariance(A, 1.0, 0.0, [signal])[0]
    assert found[0, 0] / signal == pytest.approx(variance, rel=1e-5)
    # five digits are stated, so the last covers a little more than 1e-5
    assert found[1, 0] / signal**2 == pytest.approx(parallel, rel=2e-5)
    assert found[0, 1] / signal**2 == pytest.approx(serial, rel=3e-5)


@pytest.mark.parametrize("model", MODELS)
def test_without_charge_effects_every_model_is_poisson_plus_noise(model: str) -> None:
    mean, gain = np.array([10.0, 1e3, 1e5]), 0.7
    noise = np.random.default_rng(1).normal(size=(5, 5)) + 20
    found = model_covariance(np.zeros((5, 5)), gain, noise, mean, model=model)
    expected = np.broadcast_to(noise / gain**2, (3, 5, 5)).copy()
    expected[:, 0, 0] += mean / gain
    if model in MODELS_OF_VARIANCE:
        expected = expected[:, :1, :1]
    scale = expected[:, :1, :1]
    np.testing.assert_allclose(found / scale, expected / scale, rtol=0, atol=1e-14)


def test_with_a_00_alone_the_exact_model_is_exp00_and_other_lags_are_noise() -> None:
    a, noise = np.zeros((4, 4)), np.full((4, 4), 3.0)
    a[0, 0] = -3e-6
    mean = np.linspace(1e2, 9e4, 7)
    exact = model_covariance(a, 1.4, noise, mean)
    exp00 = model_covariance(a, 1.4, noise, mean, model="exp00")
    np.testing.assert_allclose(exact[:, 0, 0], exp00[:, 0, 0], rtol=1e-12)
    others = np.ones((4, 4), dtype=bool)
    others[0, 0] = False
    np.testing.assert_allclose((exact[:, others] - 3.0 / 1.4**2) / exact[:, :1, 0], 0.0, atol=1e-12)


@pytest.mark.parametrize(("series", "exact"), [("series4_no_b", "exact"), ("series4", "exact_b")])
def test_the_series_leaves_the_exact_model_in_the_fifth_order(series: str, exact: str) -> None:
    def difference(signal: float) -> Floats:
        return (
            model_covariance(A, 1.0, 0.0, [signal], c=drift(series), model=series)
            - model_covariance(A, 1.0, 0.0, [signal], c=drift(exact), model=exact)
        )[0]

    large, small = difference(4e3), difference(2e3)
    assert large[0, 0] / small[0, 0] == pytest.approx(32, rel=0.05)
    assert large[1, 0] / small[1, 0] == pytest.approx(32, rel=0.05)


def test_the_series_is_off_by_the_stated_amounts_at_high_signal() -> None:
    signal = np.array([3e4, 5e4, 7.5e4, 1e5])
    exact = model_covariance(A, 1.0, 0.0, signal)
    relative = model_covariance(A, 1.0, 0.0, signal, model="series4_no_b") / exact - 1
    np.testing.assert_allclose(relative[:, 0, 0], [-1.7e-5, -1.3e-4, -7e-4, -2.3e-3], rtol=0.05)
    np.testing.assert_allclose(relative[:, 1, 0], [5e-4, 2.5e-3, 9e-3, 2.3e-2], rtol=0.06)


def test_the_series_is_equation_20_with_full_convolutions() -> None:
    mean, gain, noise = 6e4, 1.4, 2.0
    signal = gain * mean
    a, c = symmetrised(A), symmetrised(C)
    square, cube, cross = convolve2d(a, a), convolve2d(convolve2d(a, a), a), convolve2d(a, c)
    lags = len(A)

    def quadrant(array: Floats) -> Floats:
        origin = len(array) // 2
        return array[origin : origin + lags, origin : origin + lags]

    delta = np.zeros_like(A)
    delta[0, 0] = 1
    expected = signal * (
        delta
        + A * signal
        + 2 / 3 * (quadrant(square) + C) * signal**2
        + (2 * quadrant(cube) + 5 * quadrant(cross)) / 6 * signal**3
    )
    found = model_covariance(A, gain, noise, [mean], c=C, model="series4")[0]
    np.testing.assert_allclose(found, (expected + noise) / gain**2, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("a", [-8e-6, -1e-7, 2e-6])
@pytest.mark.parametrize("c", [0.0, -6e-12, 4e-12])
def test_each_mode_solves_the_differential_equation(a: float, c: float) -> None:
    solution = solve_ivp(
        lambda signal, covariance: 2 * (a + c * signal) * covariance + 1,
        (0, 1.2e5),
        [0.0],
        rtol=1e-12,
        atol=1e-6,
        method="DOP853",
    )
    mode = mode_covariance(
        "exact_b", np.full((1, 1), a), np.full((1, 1), c), np.full((1, 1, 1), 1.2e5)
    )
    assert mode[0, 0, 0] == pytest.approx(solution.y[0, -1], rel=1e-10)


def test_with_zero_drift_exact_b_is_exact() -> None:
    mean = np.linspace(1e2, 1.2e5, 9)
    exact = model_covariance(A, 1.0, 0.0, mean)
    found = model_covariance(A, 1.0, 0.0, mean, c=0 * A, model="exact_b")
    np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_covariances_in_electrons_do_not_depend_on_the_gain(model: str) -> None:
    def electrons(gain: float) -> Floats:
        values = model_covariance(A, gain, 0.0, [7e4 / gain], c=drift(model), model=model)
        return values * gain**2

    np.testing.assert_allclose(electrons(0.3) / electrons(2.7), 1.0, rtol=1e-13)


@pytest.mark.parametrize("model", MODELS)
def test_the_jacobian_agrees_with_central_differences(model: str) -> None:
    mean, gain = np.array([1e3, 3e4, 9e4]), 1.3
    noise = np.random.default_rng(2).normal(size=A.shape) + 10
    found = model_jacobian(A, gain, noise, mean, c=drift(model), model=model)

    def flat(a: Floats, g: float, c: Floats | None, n: Floats) -> Floats:
        return model_covariance(a, g, n, mean, c=c, model=model).reshape(len(mean), -1).T

    def close(analytic: Floats, above: Floats, below: Floats, step: float) -> None:
        numeric = (above - below) / (2 * step)
        assert np.max(np.abs(analytic - numeric)) <= 1e-6 * np.max(np.abs(numeric))

    np.testing.assert_allclose(found.value, flat(A, gain, drift(model), noise), rtol=1e-14)
    step = 1e-5
    close(
        found.by_gain,
        flat(A, gain + step, drift(model), noise),
        flat(A, gain - step, drift(model), noise),
        step,
    )
    for index in range(found.by_a.shape[2]):
        unit = np.zeros_like(A)
        unit.flat[index] = 1
        step = 1e-9
        close(
            found.by_a[:, :, index],
            flat(A + step * unit, gain, drift(model), noise),
            flat(A - step * unit, gain, drift(model), noise),
            step,
        )
        if found.by_c is not None:
            step = 1e-14
            close(
                found.by_c[:, :, index],
                flat(A, gain, C + step * unit, noise),
                flat(A, gain, C - step * unit, noise),
                step,
            )
    step = 1e-3
    change = flat(A, gain, drift(model), noise + step) - flat(A, gain, drift(model), noise - step)
    np.testing.assert_allclose(change / (2 * step), found.by_noise, rtol=1e-6)


def test_convolution_matrices_are_convolutions_of_symmetrised_arrays() -> None:
    generator = np.random.default_rng(3)
    lags = 4
    kernel = generator.normal(size=(2 * lags - 1, 2 * lags - 1))
    values = generator.normal(size=(lags, lags))
    full = convolve2d(symmetrised(kernel), symmetrised(values))
    origin = len(full) // 2
    expected = full[origin : origin + lags, origin : origin + lags]
    rows = convolution_matrices(kernel[None], lags)
    np.testing.assert_allclose((rows[:, 0] @ values.ravel()).reshape(lags, lags), expected)


@pytest.mark.parametrize("lags", [1, 2, 5, 10])
def test_modes_are_the_fourier_transform_of_the_symmetrised_array(lags: int) -> None:
    quadrant = np.random.default_rng(4).normal(size=(lags, lags))
    size = 8 * lags
    padded = np.zeros((size, size))
    for y in range(1 - lags, lags):
        for x in range(1 - lags, lags):
            padded[y % size, x % size] = quadrant[abs(y), abs(x)]
    half = size // 2 + 1
    modes = to_modes(quadrant)
    np.testing.assert_allclose(modes, np.fft.fft2(padded).real[:half, :half], atol=1e-12)
    np.testing.assert_allclose(from_modes(modes, lags), quadrant, atol=1e-13)
    assert even_sum(quadrant) == pytest.approx(padded.sum(), abs=1e-12)


def test_growth_and_its_slope_keep_their_digits_near_zero_and_beyond() -> None:
    x = np.concatenate([-np.logspace(-12, 1, 60), [0.0], np.logspace(-12, 1, 60)])
    wide = x.astype(np.longdouble)
    terms = np.ones_like(wide)
    value, slope = np.zeros_like(wide), np.zeros_like(wide)
    for k in range(1, 80):  # sum x^(k-1) / k! and its derivative, in extended precision
        value += terms / k
        slope += terms * k / ((k + 1) * k)
        terms = terms * wide / k
    large_negative = wide < -1  # the alternating series cancels there, the closed form does not
    closed = np.expm1(wide[large_negative]) / wide[large_negative]
    value[large_negative] = closed
    slope[large_negative] = (np.exp(wide[large_negative]) - closed) / wide[large_negative]
    np.testing.assert_allclose(growth(x), value.astype(float), rtol=4e-16)
    np.testing.assert_allclose(growth_slope(x), slope.astype(float), rtol=4e-15)


def test_misuse_names_the_argument_and_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'cubic'.*exact.*exp00"):
        model_covariance(A, 1.0, 0.0, [1.0], model="cubic")
    with pytest.raises(ValueError, match="'exact' has no c"):
        model_covariance(A, 1.0, 0.0, [1.0], c=C)
    with pytest.raises(ValueError, match="must be square"):
        model_covariance(A[:3], 1.0, 0.0, [1.0])
    with pytest.raises(ValueError, match="they must agree"):
        model_covariance(A, 1.0, 0.0, [1.0], c=C[:3, :3], model="series4")
    with pytest.raises(KeyError, match="noise_matrix"):
        evaluate_model(xr.Dataset({"gain": ("amp", [1.0])}), [1.0])


def test_evaluation_of_a_dataset_is_the_model_and_nan_where_nothing_was_fitted() -> None:
    a = np.full((2, 6, 6), np.nan)
    a[0, :5, :5] = A
    lagged = ("amp", "lag_y", "lag_x")
    ptc = xr.Dataset(
        {
            "gain": ("amp", [1.5, np.nan]),
            "a": (lagged, a),
            "c": (lagged, np.full_like(a, np.nan)),
            "noise_matrix": (lagged, np.where(np.isfinite(a), 3.0, np.nan)),
        },
        coords={"amp": ["C00", "C01"]},
        attrs={"model": "exact"},
    )
    found = evaluate_model(ptc, [1e3, 5e4])
    assert found.dims == ("mean", "amp", "lag_y", "lag_x")
    assert found.attrs["units"] == "adu2"
    expected = model_covariance(A, 1.5, 3.0, [1e3, 5e4])
    np.testing.assert_array_equal(found.sel(amp="C00").to_numpy()[:, :5, :5], expected)
    assert found.sel(amp="C01").isnull().all()
    assert found.sel(amp="C00").isnull().sum() == 2 * (36 - 25)
