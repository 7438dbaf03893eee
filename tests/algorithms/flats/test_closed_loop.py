"""Flats with known truth, from levels and from pixels, and levels of real cameras."""

from __future__ import annotations

import time

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.combine import CombineParameters
from skyloom.algorithms.errors import DegenerateFitError
from skyloom.algorithms.flats import (
    FlatScaleParameters,
    combine_flats,
    inside_polygon,
    measure_flat,
    normalize_flats,
    solve_flat_scales,
    usable_exposure_scales,
)
from skyloom.algorithms.vocabulary import CellStatus
from tests.real_data.measured import SHARED, decam_throughputs, hsc_sky_levels
from tests.validation.flat_levels import (
    GAIN,
    errors_over_bound,
    illuminated_camera,
    simulated_camera,
)

with_shared_data = pytest.mark.skipif(not SHARED.exists(), reason="shared data not here")


def test_errors_of_a_camera_that_almost_falls_apart_are_at_the_bound():
    found = errors_over_bound(simulated_camera(189, 1, 40), trials=30)
    assert found.error < 1.1
    assert found.pull == pytest.approx(1.0, abs=0.05)
    assert found.chi2_per_dof == pytest.approx(1.0, abs=0.05)


def test_amplifiers_of_a_large_camera_are_solved_within_a_second():
    camera = simulated_camera()
    assert camera.seen.mean() == pytest.approx(0.97, abs=0.001)
    level = xr.DataArray(
        np.where(camera.seen, camera.truth, np.nan).reshape(189, 16, 40),
        dims=("detector", "amp", "exposure"),
        coords={"detector": np.arange(189), "exposure": np.arange(40)},
    )
    solve_flat_scales(level)
    started = time.thread_time()  # of this core: a machine may have other things to do
    scales = solve_flat_scales(level)
    assert time.thread_time() - started < 1.0
    ratio = scales["detector_scale"].values.ravel() / camera.response
    assert np.ptp(ratio) < 1e-12
    level[0, :, 1] = np.nan
    with pytest.raises(DegenerateFitError, match=r"component 0: detectors 0 0, .* in exposures 0;"):
        solve_flat_scales(level)


@pytest.fixture(scope="module")
def exposures() -> tuple[list[xr.Dataset], np.ndarray, np.ndarray]:
    return illuminated_camera()


@pytest.fixture(scope="module")
def flats(exposures) -> tuple[list[xr.Dataset], np.ndarray, np.ndarray]:
    """Return statistics of flats, with the places of lit pixels."""
    exposures, response, light = exposures
    side = exposures[0].sizes["y"]
    columns = {"y_start": 0, "y_stop": side, "x_start": 0, "x_stop": side}
    table = xr.Dataset({name: ("amp", [value]) for name, value in columns.items()})
    table = table.assign({f"data_{name}": ("amp", [value]) for name, value in columns.items()})
    table = table.assign_coords(amp=["A"])
    measured = []
    for flat in exposures:
        corners = flat.attrs["polygon"]
        inside = inside_polygon((side, side), corners)
        place = {
            "focal_x": 100.0 * flat.attrs["u"][inside].mean(),
            "focal_y": 100.0 * flat.attrs["w"][inside].mean(),
        }
        measured.append(measure_flat(flat, table, polygon=corners).assign_coords(place))
    return measured, response, light


def test_gradients_of_exposures_are_fitted_and_a_drifting_lamp_is_found(flats):
    measured, response, light = flats
    parameters = FlatScaleParameters(systematic=0.0, gradient_order=1)
    with pytest.warns(UserWarning, match="exposures 109 contradict the others"):
        scales = normalize_flats(measured, parameters=parameters)
    assert 0.8 < float(scales["chi2"]) / int(scales["dof"]) < 1.2
    # the pattern that all exposures share belongs to the detectors
    planes = scales["gradient"].where(scales["exposure_status"] == 0)
    assert float(np.abs(planes.sum("exposure")).max()) < 1e-9
    centred = response / response.mean()
    sigma = scales["detector_scale_sigma"].values
    terms = np.column_stack([np.ones(12), scales["focal_x"].values, scales["focal_y"].values])
    error = np.log(scales["detector_scale"].values / centred)
    common, *_ = np.linalg.lstsq(terms, error, rcond=None)
    assert np.max(np.abs(error - terms @ common) / sigma) < 3.0
    assert float(scales["gradient_p_value"]) < 1e-10
    assert np.flatnonzero(scales["exposure_status"]).tolist() == [9]
    assert int((scales["cell_status"] == CellStatus.MISSING).sum()) == 7
    relative = scales["exposure_scale"].values / light
    assert np.ptp(np.delete(relative, 9)) / relative.mean() < 2e-3


def test_flats_combined_with_their_scales_have_the_predicted_scatter_and_no_bias(exposures, flats):
    measured, _, _ = flats
    parameters = FlatScaleParameters(systematic=0.0, gradient_order=1)
    with pytest.warns(UserWarning, match="109"):
        scales = normalize_flats(measured, parameters=parameters)
    usable = usable_exposure_scales(scales)
    name = "S05"
    frames = [
        flat.assign(variance=flat["image"] / GAIN)
        for flat in exposures[0]
        if flat["detector"] == name and int(flat["exposure"]) in usable["exposure"].values
    ]
    assert np.isfinite([flat["image"].values for flat in frames]).all()
    flat = combine_flats(frames, usable, parameters=CombineParameters(weights="equal"))
    y, x = np.indices(flat["image"].shape)
    design = np.column_stack([np.ones(y.size), x.ravel(), y.ravel()])
    values = flat["image"].values.astype(np.float64).ravel()
    plane, *_ = np.linalg.lstsq(design, values, rcond=None)
    scatter = np.std(values - design @ plane)
    predicted = float(np.sqrt(flat["variance"].mean()))
    assert scatter == pytest.approx(predicted, rel=0.025)  # a variance within 5 %
    expected = float(scales["detector_scale"].sel(detector=name))
    assert values.mean() == pytest.approx(expected, rel=1e-4)


def test_gradients_that_are_not_fitted_show_in_chi2(flats):
    measured, _, _ = flats
    kept = [part for part in measured if int(part["exposure"]) != 109]
    parameters = FlatScaleParameters(systematic=0.0, outliers="none")
    scales = normalize_flats(kept, parameters=parameters)
    assert float(scales["chi2"]) / int(scales["dof"]) > 5.0


def test_gradients_that_are_not_there_fail_the_test():
    rng = np.random.default_rng(1)
    level = xr.DataArray(
        1e4 * np.exp(1e-3 * rng.normal(size=(20, 15))),
        dims=("detector", "exposure"),
        coords={
            "focal_x": ("detector", rng.uniform(-100, 100, 20)),
            "focal_y": ("detector", rng.uniform(-100, 100, 20)),
        },
    )
    scales = solve_flat_scales(level, parameters=FlatScaleParameters(gradient_order=2))
    assert scales["term"].values.tolist() == ["x", "y", "r2"]
    assert float(scales["gradient_p_value"]) > 0.01
    assert int(scales["dof"]) == 300 - 20 - 15 - 3 * 14 + 1
    pull = scales["gradient"] / scales["gradient_sigma"]
    assert float(pull.std()) == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize("weights", ["variance", "counts", "uniform"])
def test_gradients_do_not_depend_on_what_weights_mean(weights):
    rng = np.random.default_rng(6)
    place = rng.uniform(-1, 1, (2, 20))
    planes = rng.normal(0.0, 3e-3, (15, 2))
    planes -= planes.mean(axis=0)
    pattern = np.exp((planes @ (place - place.mean(axis=1)[:, None])).T)
    level = xr.DataArray(
        1e4 * pattern * np.exp(1e-4 * rng.normal(size=(20, 15))),
        dims=("detector", "exposure"),
        coords={"focal_x": ("detector", place[0]), "focal_y": ("detector", place[1])},
    )
    parameters = FlatScaleParameters(weights=weights, systematic=1e-4, gradient_order=1)
    scales = solve_flat_scales(level, xr.full_like(level, 1e6), parameters=parameters)
    found = scales["gradient"] / float(scales["gradient_radius"])
    sigma = scales["gradient_sigma"] / float(scales["gradient_radius"])
    assert float(np.abs((found - planes) / sigma).max()) < 4.5
    assert float(sigma.max()) < 1e-4


def test_exposures_with_few_detectors_get_no_wild_gradient():
    rng = np.random.default_rng(4)
    level = xr.DataArray(
        1e4 * np.exp(1e-3 * rng.normal(size=(20, 15))),
        dims=("detector", "exposure"),
        coords={
            "focal_x": ("detector", rng.uniform(-100, 100, 20)),
            "focal_y": ("detector", rng.uniform(-100, 100, 20)),
        },
    )
    level[1:, 3] = np.nan
    scales = solve_flat_scales(level, parameters=FlatScaleParameters(gradient_order=1))
    assert float(np.abs(scales["gradient"][3]).max()) < 0.1
    assert 0.05 < float(scales["gradient_sigma"][3].max()) < 0.11
    assert float(np.abs(scales["detector_scale"] - 1.0).max()) < 2e-3


@with_shared_data
def test_sky_levels_of_hyper_suprime_cam_have_the_stated_scatter():
    level = hsc_sky_levels()
    scales = solve_flat_scales(level, parameters=FlatScaleParameters(systematic=None))
    log = np.log(scales["detector_scale"])
    residual = np.log1p(scales["residual"])
    assert float(log.std()) == pytest.approx(0.0173, abs=0.00005)
    assert float(np.sqrt((residual**2).mean())) == pytest.approx(0.0042, abs=0.00005)
    assert float(scales["systematic"]) == pytest.approx(0.0048, abs=0.00005)
    assert float(scales["systematic_sigma"]) == pytest.approx(0.0048 / np.sqrt(2 * 306), rel=0.02)
    assert float(np.abs(residual).max()) == pytest.approx(0.0144, abs=0.00005)
    beyond = np.argwhere(np.abs(scales["pull"].values) > 3.0)
    named = {(int(level["detector"][d]), int(level["exposure"][e])) for d, e in beyond}
    assert named == {(3, 1176), (101, 1176)}
    assert scales["exposure_scale"].values == pytest.approx([3191, 2250, 2285, 2192], abs=1.0)
    assert float(scales["detector_scale_sigma"].mean()) == pytest.approx(0.0048 / 2, rel=0.02)


@with_shared_data
def test_measured_responses_of_decam_are_found_again_band_by_band():
    truth = decam_throughputs()
    rng = np.random.default_rng(7)
    light = 2e4 * np.exp(rng.uniform(0.0, np.log(3.0), 12))
    chi2, pulls = [], []
    for band in truth["physical_filter"].values:
        response = truth.sel(physical_filter=band)
        level = response * xr.DataArray(light, dims="exposure")
        level = level * np.exp(1e-3 * rng.normal(size=level.shape))
        scales = solve_flat_scales(level)
        pulls.append(
            ((scales["detector_scale"] - response) / scales["detector_scale_sigma"]).values
        )
        chi2.append(float(scales["chi2"]) / int(scales["dof"]))
        assert float(scales["detector_scale"].std()) == pytest.approx(
            float(response.std()), abs=1.5e-4
        )
    assert np.std(pulls) == pytest.approx(1.0, abs=0.15)
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.1)


@with_shared_data
def test_an_exposure_in_another_filter_than_its_header_says_is_left_out_by_name():
    truth = decam_throughputs()
    rng = np.random.default_rng(8)
    bands = ["i"] * 12
    bands[5] = "g"
    level = truth.sel(physical_filter=xr.DataArray(bands, dims="exposure")) * 2e4
    level = level.assign_coords(exposure=np.arange(12) + 500)
    level = level * np.exp(1e-3 * rng.normal(size=level.shape))
    with pytest.warns(UserWarning, match="exposures 505 contradict"):
        scales = solve_flat_scales(level)
    response = truth.sel(physical_filter="i")
    assert float(np.abs(scales["detector_scale"] / response - 1.0).max()) < 1.5e-3
