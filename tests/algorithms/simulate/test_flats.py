"""Simulated frames are what their truth says, and any of them can be made alone."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import xarray as xr
from scipy.ndimage import label

from skyloom.algorithms.detrend import detrend_amplifier
from skyloom.algorithms.photon_transfer.covariance import covariance_sums
from skyloom.algorithms.simulate import (
    TYPICAL_A,
    FrameParameters,
    TruthParameters,
    amplifier_grid,
    correlated_field,
    flat_covariance,
    flat_plan,
    flat_truth,
    simulate_exposure,
    simulate_flat_frame,
    simulate_flats,
)

PLAIN = FrameParameters(
    response_nonuniformity=0, dark_current=0, bias_structure=0, bias_drift=0, dtype="float32"
)
EXACT = TruthParameters(gain_spread=0, noise_spread=0, a_spread=0, bias_spread=0)


def detector(shape: tuple[int, int] = (128, 128), overscan: int = 16) -> xr.Dataset:
    return amplifier_grid("R0", (1, 2), shape, overscan=overscan, gain=1.5, read_noise=6.0)


def frame(
    electrons: float, parameters: FrameParameters = PLAIN, seed: int = 1, **changes: object
) -> xr.Dataset:
    amplifiers = detector()
    truth = flat_truth(amplifiers, parameters=EXACT).assign(**changes)
    return simulate_flat_frame(
        amplifiers,
        truth,
        electrons,
        exposure_time=electrons / 1000,
        rng=np.random.default_rng(seed),
        parameters=parameters,
    )


@pytest.mark.parametrize("drift", [0.0, -3e-6])
def test_covariances_of_200_pairs_are_unbiased(drift: float) -> None:
    electrons, number = 7e4, 200
    a = np.array(TYPICAL_A)
    b = np.full_like(a, drift) if drift else None
    covariance = flat_covariance(a, electrons, b=b)
    rng = np.random.default_rng(4)
    measured = np.empty((number, 5, 5))
    for pair in range(number):
        first, second = (correlated_field(covariance, (100, 121), rng) for _ in range(2))
        measured[pair] = covariance_sums(first - second, lags=5).covariance
    mean, sigma = measured.mean(axis=0), measured.std(axis=0) / np.sqrt(number)
    # subtracting the mean of the image removes the sum of all covariances over the pixels
    lags = np.where(np.arange(20) > 0, 2, 1)
    expected = covariance[:5, :5] - (np.outer(lags, lags) * covariance).sum() / (100 * 121)
    assert np.abs((mean - expected) / sigma).max() < 4
    assert sigma[0, 0] < 2e-3 * covariance[0, 0]


def test_covariances_of_the_typical_matrix_are_those_that_were_published_for_it() -> None:
    for electrons, variance, parallel, serial in (
        (1e4, 0.96784, 3.9938e-7, 1.6931e-7),
        (5e4, 0.85281, 3.4032e-7, 1.4852e-7),
        (1e5, 0.73487, 2.8054e-7, 1.2672e-7),
    ):
        covariance = flat_covariance(np.array(TYPICAL_A), electrons)
        # the matrix here is rounded to four digits
        assert covariance[0, 0] / electrons == pytest.approx(variance, rel=2e-4)
        assert covariance[1, 0] / electrons**2 == pytest.approx(parallel, rel=1e-3)
        assert covariance[0, 1] / electrons**2 == pytest.approx(serial, rel=1e-3)


def test_a_negative_mode_is_refused_with_its_value() -> None:
    with pytest.raises(ValueError, match=r"mode -0\.6 is negative"):
        correlated_field(np.array([[1.0, 0.8]]), (50, 50), np.random.default_rng(1))


def test_gain_and_noise_are_those_of_the_truth() -> None:
    one, two = (frame(1e4, seed=seed).image.to_numpy() for seed in (1, 2))
    data = slice(0, 128)
    difference = one[:, data] - two[:, data]
    pixels = difference.size
    a = np.array(TYPICAL_A)
    expected = 2 * (flat_covariance(a, 1e4)[0, 0] + 36.0) / 1.5**2
    assert difference.var() == pytest.approx(expected, rel=4 * np.sqrt(2 / pixels))
    mean = (one[:, data].mean() + two[:, data].mean()) / 2 - 1000
    assert mean == pytest.approx(1e4 / 1.5, abs=4 * np.sqrt(expected / 4 / pixels))


def test_overscan_holds_bias_and_all_of_the_read_noise_after_digitisation() -> None:
    integers = PLAIN.model_copy(update={"dtype": "uint16"})
    overscan = np.concatenate(
        [frame(1e4, integers, seed).image.to_numpy()[:, 128:144].ravel() for seed in range(20)]
    ).astype(float)
    assert overscan.mean() == pytest.approx(1000, abs=4 * 4 / np.sqrt(overscan.size))
    assert overscan.std() * 1.5 == pytest.approx(6.0, rel=4 / np.sqrt(2 * overscan.size))


def test_a_noise_matrix_gives_correlated_read_noise() -> None:
    matrix = np.zeros((2, 5, 5))
    matrix[:, 0, 0], matrix[:, 0, 1] = 36.0, 10.0
    dark = frame(0.0, noise_matrix=(("amp", "lag_y", "lag_x"), matrix)).image.to_numpy()[:, :128]
    sums = covariance_sums(dark, lags=2)
    # one frame, not a difference, so the halving is undone
    assert 2 * 1.5**2 * sums.covariance[0, 1] == pytest.approx(10.0, abs=4 * 36 / np.sqrt(128**2))
    assert 2 * 1.5**2 * sums.covariance[1, 0] == pytest.approx(0.0, abs=4 * 36 / np.sqrt(128**2))


def test_response_repeats_in_every_exposure_and_follows_the_signal() -> None:
    parameters = PLAIN.model_copy(update={"response_nonuniformity": 0.05})
    one, two, faint = (
        frame(level, parameters, seed).image.to_numpy()[:, :128] - 1000
        for level, seed in ((4e4, 1), (4e4, 2), (4e3, 3))
    )
    pattern = np.cov(one.ravel() / one.mean(), faint.ravel() / faint.mean())[0, 1]
    assert np.sqrt(pattern) == pytest.approx(0.05, rel=0.03)
    scaled = one * two.mean() - two * one.mean()
    assert abs(np.corrcoef(scaled.ravel(), faint.ravel())[0, 1]) < 4 / 128


def test_illumination_falls_along_the_gradient_and_is_right_in_the_centre() -> None:
    flat = frame(2e4, PLAIN.model_copy(update={"gradient_x": -0.2})).image.to_numpy() - 1000
    left, right = flat[:, :128], flat[:, 144:272]
    assert left.mean() / right.mean() == pytest.approx(1.05 / 0.95, rel=1e-3)
    assert (left.mean() + right.mean()) / 2 == pytest.approx(2e4 / 1.5, rel=1e-3)
    columns = left.mean(axis=0)
    assert columns[0] / columns[-1] == pytest.approx(1.1 / 1.0, rel=5e-3)


def test_a_flipped_amplifier_sees_the_gradient_the_other_way_round() -> None:
    amplifiers = detector()
    flipped = amplifiers.assign(flip_x=("amp", [True, True]))
    parameters = PLAIN.model_copy(update={"gradient_x": -0.2})
    columns = (
        simulate_flat_frame(
            flipped,
            flat_truth(amplifiers, parameters=EXACT),
            2e4,
            exposure_time=1.0,
            rng=np.random.default_rng(1),
            parameters=parameters,
        )
        .image.to_numpy()[:, :128]
        .mean(axis=0)
    )
    assert columns[-1] - 1000 > columns[0] - 1000 + 1000


def test_full_well_and_converter_clip() -> None:
    well = frame(1e5, full_well=("amp", [5e4, np.inf])).image.to_numpy()
    saturated = well[:, :128] - 1000
    assert saturated.mean() == pytest.approx(5e4 / 1.5, abs=0.1)
    assert saturated.std() * 1.5 == pytest.approx(6.0, rel=0.03)
    integers = frame(1e5, PLAIN.model_copy(update={"dtype": "uint16"})).image.to_numpy()
    assert integers.dtype == np.uint16
    assert integers.max() == 65535
    assert integers[:, :128].min() == 65535


def test_outliers_and_cosmic_rays_come_at_their_rates() -> None:
    parameters = PLAIN.model_copy(update={"outlier_fraction": 0.01, "outlier_electrons": 3e4})
    bright = frame(1e4, parameters).image.to_numpy()[:, :128] - 1000 > 2e4
    assert bright.sum() == pytest.approx(0.01 * 128**2, abs=4 * 12.8)
    rays = PLAIN.model_copy(update={"cosmic_ray_rate": 1e-4})
    tracks = 0
    for seed in range(20):
        hit = frame(1e4, rays, seed).image.to_numpy()[:, :128] - 1000 > 1e4 / 1.5 + 800
        tracks += label(hit, np.ones((3, 3)))[1]
    expected = 20 * 1e-4 * 10 * 128**2
    assert tracks == pytest.approx(expected, abs=4 * np.sqrt(expected))


def test_row_noise_is_shared_by_a_row_and_its_overscan() -> None:
    image = frame(0.0, PLAIN.model_copy(update={"row_noise": 20.0})).image.to_numpy()
    data, overscan = image[:, :128].mean(axis=1), image[:, 128:144].mean(axis=1)
    assert np.corrcoef(data, overscan)[0, 1] > 0.99
    assert data.std() == pytest.approx(20.0, rel=4 / np.sqrt(2 * 128))


def test_bias_dark_and_flat_pairs_follow_the_plan() -> None:
    plan = flat_plan([1e4, 3e4], biases=2, dark_times=[50.0], mismatch=0.01, pairs=2, seed=3)
    assert plan.observation_type.to_numpy().tolist() == ["bias"] * 2 + ["dark"] * 2 + ["flat"] * 8
    assert np.all(np.diff(plan.mjd_start) > 0)
    assert np.unique(plan.seed).size == plan.sizes["exposure"]
    parameters = PLAIN.model_copy(update={"dark_current": 5.0})
    frames = list(simulate_flats(plan, {"R0": detector()}, parameters=parameters, seed=3))
    truth = flat_truth(detector(), seed=3)
    for frame, (_, row) in zip(frames, plan.groupby("exposure"), strict=True):
        expected = float(row.electrons.item() + 5.0 * row.exposure_time.item())
        level = float(frame.image[:, :128].mean()) - float(truth.bias_level[0])
        assert level * float(truth.gain[0]) == pytest.approx(expected, rel=2e-3, abs=0.5)
        assert str(frame.observation_type.values) == str(row.observation_type.item())
        assert frame.image.attrs["units"] == "adu"


def test_any_frame_made_alone_or_in_threads_has_the_same_bits() -> None:
    tables = {name: amplifier_grid(name, (1, 2), (64, 48), overscan=8) for name in ("R0", "R1")}
    truth = {name: flat_truth(table, seed=9) for name, table in tables.items()}
    plan = flat_plan([1e4, 2e4], seed=9)
    together = list(simulate_flats(plan, tables, truth))
    jobs = [(int(number), name) for number in plan.exposure for name in tables][::-1]
    with ThreadPoolExecutor(2) as pool:
        alone = pool.map(
            lambda job: simulate_exposure(plan, job[0], tables[job[1]], truth[job[1]]), jobs
        )
        for expected, found in zip(together[::-1], alone, strict=True):
            xr.testing.assert_identical(expected, found)
    assert not np.array_equal(together[0].image, together[1].image)
    assert not np.array_equal(together[0].image, together[2].image)


def test_inputs_are_not_changed() -> None:
    amplifiers = detector()
    truth = flat_truth(amplifiers, seed=2)
    before = amplifiers.copy(deep=True), truth.copy(deep=True)
    simulate_flat_frame(amplifiers, truth, 1e4, exposure_time=1.0, rng=np.random.default_rng(1))
    xr.testing.assert_identical(amplifiers, before[0])
    xr.testing.assert_identical(truth, before[1])


def test_everything_wrong_with_a_truth_is_listed_at_once() -> None:
    amplifiers = detector()
    truth = flat_truth(amplifiers).isel(amp=[0]).drop_vars("full_well")
    with pytest.raises(
        ValueError, match=r"lacks 'full_well'.*amplifiers C01.*mean_electrons is -1"
    ):
        simulate_flat_frame(
            amplifiers, truth, -1.0, exposure_time=1.0, rng=np.random.default_rng(1)
        )


def test_noise_that_digitisation_alone_exceeds_is_refused() -> None:
    with pytest.raises(ValueError, match="below the digitisation noise"):
        frame(
            1e3,
            PLAIN.model_copy(update={"dtype": "uint16"}),
            noise=("amp", [0.1, 0.1]),
        )


def test_a_shape_that_cuts_sections_is_refused() -> None:
    amplifiers = detector()
    with pytest.raises(ValueError, match="smaller than the sections"):
        simulate_flat_frame(
            amplifiers,
            flat_truth(amplifiers),
            1e3,
            exposure_time=1.0,
            rng=np.random.default_rng(1),
            shape=(100, 100),
        )


def test_an_exposure_that_is_not_planned_and_a_detector_without_truth_are_named() -> None:
    plan = flat_plan([1e4])
    amplifiers = detector()
    with pytest.raises(KeyError, match="no exposure 7"):
        simulate_exposure(plan, 7, amplifiers, flat_truth(amplifiers))
    with pytest.raises(KeyError, match="detectors R0"):
        simulate_flats(plan, {"R0": amplifiers}, {})
    with pytest.raises(ValueError, match="positive and finite"):
        flat_plan([1e4, np.nan])


def test_detrended_frames_lie_as_the_illumination_does_whatever_way_they_were_read() -> None:
    amplifiers = detector().assign(flip_x=("amp", [True, False]), flip_y=("amp", [False, True]))
    raw = simulate_flat_frame(
        amplifiers,
        flat_truth(amplifiers, parameters=EXACT),
        2e4,
        exposure_time=1.0,
        rng=np.random.default_rng(1),
        parameters=PLAIN.model_copy(update={"gradient_x": -0.2, "gradient_y": 0.3}),
    )
    expected = 2e4 / 1.5
    for index in (0, 1):
        image = detrend_amplifier(raw, amplifiers.isel(amp=index)).image
        x = (image.x.to_numpy() + 0.5) / 256 - 0.5
        y = (image.y.to_numpy() + 0.5) / 128 - 0.5
        columns, rows = image.mean("y").to_numpy() / expected, image.mean("x").to_numpy() / expected
        np.testing.assert_allclose(columns, 1 - 0.2 * x, atol=5e-3)
        np.testing.assert_allclose(rows, 1 - 0.2 * x.mean() + 0.3 * y, atol=5e-3)
