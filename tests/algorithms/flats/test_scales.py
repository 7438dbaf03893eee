"""Scales of exposures and detectors: identities, stated values, errors, missing cells, misuse."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.errors import DegenerateFitError, NoUsableDataError
from skyloom.algorithms.flats import (
    FlatScaleParameters,
    measure_scales,
    solve_flat_scales,
    usable_exposure_scales,
)
from skyloom.algorithms.vocabulary import CellStatus

G = np.array([0.8, 1.0, 1.2])
E = np.array([1000.0, 2000.0, 4000.0, 8000.0])
PLAIN = FlatScaleParameters(outliers="none")


def levels(response, light, noise=0.0, seed=1) -> xr.DataArray:
    """Return levels (detector, exposure) with relative noise."""
    rng = np.random.default_rng(seed)
    values = np.outer(response, light)
    values = values * np.exp(noise * rng.normal(size=values.shape))
    return xr.DataArray(
        values,
        dims=("detector", "exposure"),
        coords={
            "detector": [f"S{index:02d}" for index in range(len(response))],
            "exposure": np.arange(len(light)) + 100,
        },
        attrs={"units": "adu"},
    )


def camera(detectors=9, exposures=12, seed=3) -> tuple[np.ndarray, np.ndarray]:
    """Return responses of mean 1 and light."""
    rng = np.random.default_rng(seed)
    response = 1.0 + 0.1 * rng.normal(size=detectors)
    return response / response.mean(), 1e4 * np.exp(rng.uniform(0.0, 1.4, exposures))


def worst(found: xr.DataArray, truth) -> float:
    return float(np.nanmax(np.abs(found.values / np.asarray(truth) - 1.0)))


def weakly_linked(noise=0.0) -> tuple[xr.DataArray, np.ndarray, np.ndarray]:
    """Return levels of two groups of detectors that share detector 4 alone."""
    response, light = camera()
    level = levels(response, light, noise)
    level[5:, :6] = np.nan
    level[:4, 6:] = np.nan
    return level, response, light


def test_three_detectors_in_four_exposures_have_the_stated_scales():
    scales = solve_flat_scales(levels(G, E))
    assert worst(scales["exposure_scale"], E) < 1e-13
    assert worst(scales["detector_scale"], G) < 1e-13
    assert worst(scales["model"], np.outer(G, E)) < 1e-13
    assert float(np.abs(scales["residual"]).max()) < 1e-13
    assert scales["exposure_scale"].attrs["units"] == "adu"
    assert int(scales["dof"]) == 6


def test_pixel_counts_set_the_gauge():
    count = xr.DataArray([1.0, 1.0, 2.0], dims="detector")
    scales = measure_scales(levels(G, E), count)
    assert scales["detector_scale"].values == pytest.approx(
        [0.761905, 0.952381, 1.142857], abs=1e-6
    )
    assert worst(scales["exposure_scale"], 1.05 * E) < 1e-13


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -5.0])
@pytest.mark.parametrize("count", [1.0, 1e12])
@pytest.mark.parametrize("method", ["wls", "alternating"])
def test_an_unusable_level_weighs_nothing_whatever_its_count(bad, count, method):
    level = levels(G, E, 1e-3)
    counts = xr.full_like(level, 1e6)
    counts[1, 2] = count
    level[1, 2] = bad
    scales = measure_scales(level, counts, method=method)
    deleted = level.copy()
    deleted[1, 2] = np.nan
    counts[1, 2] = 0.0
    expected = measure_scales(deleted, counts, method=method)
    for name in ("exposure_scale", "detector_scale", "exposure_scale_sigma", "chi2"):
        np.testing.assert_array_equal(scales[name], expected[name])


def test_a_missing_level_changes_nothing_without_noise():
    level = levels(G, E)
    level[1, 2] = np.nan
    for method in ("wls", "alternating"):
        scales = measure_scales(level, method=method)
        assert worst(scales["exposure_scale"], E) < (1e-13 if method == "wls" else 1e-9)
        assert worst(scales["detector_scale"], G) < (1e-13 if method == "wls" else 1e-9)
    assert CellStatus(int(scales["cell_status"][1, 2])) is CellStatus.MISSING


def test_permuted_and_swapped_levels_give_permuted_scales():
    level = levels(*camera(), 1e-3)
    level[2, 3] = np.nan
    expected = solve_flat_scales(level)
    rng = np.random.default_rng(5)
    mixed = level.isel(detector=rng.permutation(9), exposure=rng.permutation(12))
    found = solve_flat_scales(mixed.transpose("exposure", "detector")).sel(
        detector=level["detector"], exposure=level["exposure"]
    )
    for name in ("exposure_scale", "detector_scale", "model", "detector_scale_sigma"):
        xr.testing.assert_allclose(found[name], expected[name], rtol=1e-13)


def test_counts_and_scatter_are_matched_by_label():
    level = levels(*camera(), 1e-3)
    rng = np.random.default_rng(6)
    count = xr.full_like(level, 1.0) * rng.integers(1, 5, level.shape)
    sigma = level * 0.0 + rng.uniform(10, 20, level.shape)
    expected = solve_flat_scales(level, count, sigma)
    found = solve_flat_scales(
        level, count[::-1, ::-1], sigma.isel(detector=slice(None, None, -1)).T
    )
    xr.testing.assert_identical(found, expected)


def test_a_factor_on_an_exposure_is_its_scale_alone():
    level = levels(*camera(), 1e-3)
    expected = solve_flat_scales(level)
    brighter = level.copy()
    brighter[:, 4] *= 3.0
    found = solve_flat_scales(brighter)
    ratio = (found["exposure_scale"] / expected["exposure_scale"]).values
    assert ratio[4] == pytest.approx(3.0, rel=1e-13)
    assert np.delete(ratio, 4) == pytest.approx(1.0, rel=1e-13)
    assert worst(found["detector_scale"], expected["detector_scale"]) < 1e-13


def test_a_factor_on_a_detector_is_its_scale_up_to_the_gauge():
    level = levels(*camera(), 1e-3)
    expected = solve_flat_scales(level)
    brighter = level.copy()
    brighter[4] *= 3.0
    found = solve_flat_scales(brighter)
    ratio = (found["detector_scale"] / expected["detector_scale"]).values
    assert ratio[4] / ratio[0] == pytest.approx(3.0, rel=1e-13)
    assert np.delete(ratio, 4) == pytest.approx(ratio[0], rel=1e-13)
    model = expected["model"].values * np.where(np.arange(9) == 4, 3.0, 1.0)[:, None]
    assert worst(found["model"], model) < 1e-13


@pytest.mark.parametrize("seed", range(5))
def test_any_connected_part_of_the_cells_gives_the_same_scales(seed):
    response, light = camera()
    level = levels(response, light)
    lost = np.random.default_rng(seed).random(level.shape) < 0.3
    scales = measure_scales(level.where(~lost), gauge="equal")
    assert worst(scales["exposure_scale"], light) < 1e-12
    assert worst(scales["detector_scale"], response) < 1e-12


def test_both_methods_agree_once_the_second_has_converged():
    level = levels(*camera(), 1e-2)
    level = level.where(np.random.default_rng(8).random(level.shape) > 0.25)
    count = xr.full_like(level, 1.0) * np.random.default_rng(9).integers(1, 9, level.shape)
    first = measure_scales(level, count)
    second = measure_scales(level, count, method="alternating", tolerance=1e-13)
    assert worst(second["exposure_scale"], first["exposure_scale"]) < 1e-9
    assert worst(second["detector_scale"], first["detector_scale"]) < 1e-9


def test_equal_weights_of_a_complete_matrix_are_plain_means():
    level = levels(*camera(), 1e-2)
    scales = measure_scales(level)
    log = np.log(level)
    gamma = log.mean("exposure") - log.mean()
    found = np.log(scales["detector_scale"])
    assert float(np.abs((found - found.mean()) - gamma).max()) < 1e-13


@pytest.mark.parametrize(
    ("gauge", "value"),
    [
        ("counts", lambda g: g.mean()),
        ("equal", lambda g: g.mean()),
        ("median", lambda g: np.median(g)),
        ("reference", lambda g: g[3]),
    ],
)
@pytest.mark.parametrize("detectors", [8, 9])
def test_a_gauge_makes_its_own_quantity_one(gauge, value, detectors):
    level = levels(*camera(detectors), 1e-3)
    parameters = FlatScaleParameters(gauge=gauge, reference="S03")
    scales = solve_flat_scales(level, parameters=parameters)
    assert value(scales["detector_scale"].values) == pytest.approx(1.0, abs=1e-13)
    free = measure_scales(level)
    assert worst(scales["model"], free["model"]) < 1e-13
    if gauge == "reference":
        assert float(scales["detector_scale_sigma"][3]) == pytest.approx(0.0, abs=1e-10)


def test_weak_links_cost_no_precision_and_are_warned_of_where_means_do_not_converge():
    level, response, light = weakly_linked()
    scales = measure_scales(level, gauge="equal")
    assert worst(scales["detector_scale"], response) < 1e-13
    assert worst(scales["exposure_scale"], light) < 1e-13
    assert 0.1 < float(scales["link_strength"]) < 0.3
    with pytest.warns(UserWarning, match="did not converge in 10 iterations"):
        short = measure_scales(level, gauge="equal", method="alternating", iterations=10)
    assert 1e-4 < worst(short["detector_scale"], response) < 0.1


def test_nearly_separate_sets_are_warned_of():
    response, light = camera(40, 30)
    level = levels(response, light, 1e-3)
    level[:20, 15:] = np.nan
    level[20:, :15] = np.nan
    level[0, 20] = response[0] * light[20]
    with pytest.warns(UserWarning, match="linked weakly"):
        scales = solve_flat_scales(level)
    assert 0.0 < float(scales["link_strength"]) < 0.05


def test_separate_sets_are_an_error_that_names_them():
    level, _, _ = weakly_linked()
    level[4, 6:] = np.nan
    with pytest.raises(DegenerateFitError, match="2 sets of detectors") as caught:
        solve_flat_scales(level)
    assert "component 0: detectors S00, S01, S02, S03, S04 in exposures 100, 101" in str(
        caught.value
    )
    assert "component 1: detectors S05, S06, S07, S08 in exposures 106, 107" in str(caught.value)


def test_separate_sets_can_be_solved_each_alone():
    level, response, _ = weakly_linked()
    level[4, 6:] = np.nan
    parameters = FlatScaleParameters(on_disconnected="per_component")
    with pytest.warns(UserWarning, match="within each of 2 sets"):
        scales = solve_flat_scales(level, parameters=parameters)
    assert scales["detector_component"].values.tolist() == [0] * 5 + [1] * 4
    assert scales["exposure_component"].values.tolist() == [0] * 6 + [1] * 6
    for members in (slice(0, 5), slice(5, 9)):
        part = response[members]
        assert worst(scales["detector_scale"][members], part / part.mean()) < 1e-12
    assert int(scales["dof"]) == 54 - (9 + 12 - 2)


@pytest.mark.parametrize("gauge", ["counts", "reference", "median"])
def test_errors_are_right_in_every_gauge(gauge):
    response, light = camera()
    rng = np.random.default_rng(20)
    lost = rng.random((9, 12)) < 0.25
    noise = rng.uniform(0.5e-3, 2e-3, (9, 12))
    level = levels(response, light).where(~lost)
    exact = FlatScaleParameters(outliers="none", systematic=0.0, gauge=gauge, reference="S02")
    count = xr.full_like(level, 1.0)
    truth = solve_flat_scales(level, count, level * noise, parameters=exact)
    names = ("exposure_scale", "detector_scale")
    pulls: dict[str, list] = {name: [] for name in names}
    chi2 = []
    for _ in range(150):
        noisy = level * np.exp(noise * rng.normal(size=noise.shape))
        found = solve_flat_scales(noisy, count, noisy * noise, parameters=exact)
        for name in names:
            sigma = found[f"{name}_sigma"].where(found[f"{name}_sigma"] > 1e-9)
            pulls[name].append(((found[name] - truth[name]) / sigma).values)
        chi2.append(float(found["chi2"]))
    assert np.mean(chi2) / int(found["dof"]) == pytest.approx(1.0, abs=0.05)
    for name in names:
        assert np.nanstd(pulls[name]) == pytest.approx(1.0, abs=0.05)
        assert np.nanmean(pulls[name]) == pytest.approx(0.0, abs=0.1)


def test_more_exposures_than_detectors_give_the_same_as_the_other_way_round():
    response, light = camera(5, 30)
    level = levels(response, light, 1e-3)
    level = level.where(np.random.default_rng(2).random(level.shape) > 0.2)
    wide = solve_flat_scales(level, parameters=PLAIN)
    # a second component's worth of the same detectors makes the other elimination the cheaper
    flipped = level.rename(detector="exposure", exposure="detector")
    tall = solve_flat_scales(
        flipped, parameters=PLAIN.model_copy(update={"gauge": "reference", "reference": "100"})
    )
    log = np.log(wide["model"].values)
    assert np.nanmax(np.abs(log - np.log(tall["model"].values.T))) < 1e-12
    np.testing.assert_allclose(wide["pull"], tall["pull"].values.T, rtol=1e-9, atol=1e-12)
    assert float(wide["link_strength"]) == pytest.approx(float(tall["link_strength"]), abs=1e-12)


def test_residual_scatter_can_be_taken_from_the_levels():
    level = levels(*camera(60, 20), 4e-3)
    scales = solve_flat_scales(level, parameters=FlatScaleParameters(systematic=None))
    sigma = float(scales["systematic_sigma"])
    assert float(scales["systematic"]) == pytest.approx(4e-3, abs=4 * sigma)
    assert float(scales["chi2"]) / int(scales["dof"]) == pytest.approx(1.0, abs=0.01)


def test_amplifiers_of_different_detectors_keep_their_labels():
    rng = np.random.default_rng(4)
    detectors, amps = ["D8", "D16"], [f"C{index:02d}" for index in range(16)]
    response = xr.DataArray(
        1 + 0.1 * rng.normal(size=(2, 16)),
        dims=("detector", "amp"),
        coords={"detector": detectors, "amp": amps},
    )
    response[0, 8:] = np.nan
    response = response / response.mean()
    light = xr.DataArray(1e4 * (1 + np.arange(5.0)), dims="exposure")
    count = xr.where(np.isfinite(response), 1e6, np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scales = solve_flat_scales(
            (light * response).transpose("amp", "exposure", "detector"), count
        )
    assert scales["detector_scale"].dims == ("detector", "amp")
    assert worst(scales["detector_scale"], response) < 1e-12
    assert np.isnan(scales["detector_scale"].sel(detector="D8", amp="C12"))
    assert worst(scales["exposure_scale"], light) < 1e-12


def test_one_amplifier_a_detector_equals_the_detector_level():
    level = levels(*camera(), 1e-3)
    plain = solve_flat_scales(level)
    amps = solve_flat_scales(level.expand_dims(amp=["A"], axis=1))
    xr.testing.assert_identical(amps.isel(amp=0, drop=True), plain)


def test_one_exposure_is_divided_by_its_mean():
    level = levels(G, E[:1])
    scales = solve_flat_scales(level)
    assert worst(scales["detector_scale"], G) < 1e-13
    assert np.isfinite(scales["detector_scale_sigma"]).all()
    assert (int(scales["dof"]), float(scales["chi2"])) == (0, pytest.approx(0.0, abs=1e-20))


def test_one_detector_has_response_one():
    scales = solve_flat_scales(levels(G[:1], E))
    assert scales["detector_scale"].values.tolist() == [1.0]
    assert worst(scales["exposure_scale"], G[0] * E) < 1e-13


def test_a_detector_without_levels_is_left_out_by_name():
    level = levels(*camera(), 1e-3)
    expected = solve_flat_scales(level.isel(detector=np.arange(8)))
    level[8] = np.nan
    with pytest.warns(UserWarning, match="detectors S08 have no usable level"):
        scales = solve_flat_scales(level)
    assert np.isnan(scales["detector_scale"][8])
    assert CellStatus(int(scales["detector_status"][8])) is CellStatus.MISSING
    xr.testing.assert_identical(scales["exposure_scale"], expected["exposure_scale"])
    np.testing.assert_array_equal(scales["detector_scale"][:8], expected["detector_scale"])


def test_an_exposure_without_levels_has_no_scale():
    level = levels(*camera(), 1e-3)
    level[:, 3] = 0.0
    with pytest.warns(UserWarning, match="exposures 103 have no usable level"):
        scales = solve_flat_scales(level)
    assert np.isnan(scales["exposure_scale"][3])
    assert CellStatus(int(scales["cell_status"][0, 3])) is CellStatus.NONPOSITIVE


def test_nothing_usable_is_an_error():
    with pytest.raises(NoUsableDataError, match="none of 12 levels"):
        solve_flat_scales(levels(G, E) * np.nan)
    with pytest.raises(NoUsableDataError, match="no levels"):
        solve_flat_scales(levels(G, E)[:, :0])


def test_a_repeated_label_is_named():
    level = levels(G, E)
    twice = level.assign_coords(exposure=[7, 8, 8, 9])
    with pytest.raises(ValueError, match="exposure 8 occurs more than once"):
        solve_flat_scales(twice)


def test_finite_levels_without_weight_are_missing_and_counted():
    level = levels(*camera(), 1e-3)
    count = xr.full_like(level, 1e6)
    count[0, 0], count[1, 1], count[2, 2] = -1.0, np.nan, 0.0
    with pytest.warns(UserWarning, match="3 finite levels"):
        scales = solve_flat_scales(level, count)
    status = scales["cell_status"].values
    assert [CellStatus(int(status[i, i])).name for i in range(3)] == ["MISSING"] * 3
    assert int(scales["dof"]) == 9 * 12 - 3 - 9 - 12 + 1


def test_misuse_is_named():
    level = levels(G, E)
    with pytest.raises(TypeError, match="name its dimensions"):
        solve_flat_scales(level.values)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs the dimension 'exposure'"):
        solve_flat_scales(level.rename(exposure="night"))
    with pytest.raises(ValueError, match="no noise"):
        solve_flat_scales(level, parameters=FlatScaleParameters(systematic=0.0))
    with pytest.raises(ValueError, match="there are S00, S01, S02"):
        solve_flat_scales(level, parameters=FlatScaleParameters(gauge="reference", reference="X"))
    with pytest.raises(ValueError, match="count has 2 along 'detector'"):
        solve_flat_scales(level, xr.DataArray([1.0, 2.0], dims="detector"))
    with pytest.raises(ValueError, match="has not"):
        solve_flat_scales(level, xr.DataArray([1.0, 2.0], dims="amp"))


def test_inputs_are_not_changed():
    level = levels(*camera(), 1e-3)
    level[3, 3] = np.nan
    level[4, 4] *= 2.0
    count = xr.full_like(level, 1e6)
    before = level.copy(deep=True), count.copy(deep=True)
    solve_flat_scales(level, count, level * 0.01)
    xr.testing.assert_identical(level, before[0])
    xr.testing.assert_identical(count, before[1])


def test_wild_levels_are_set_aside_by_name():
    response, light = camera()
    level = levels(response, light, 1e-3)
    wild = level.copy()
    for cell, factor in (((1, 2), 1.5), ((1, 7), 0.1), ((5, 2), 0.97), ((8, 11), 1.02)):
        wild[cell] *= factor
    scales = solve_flat_scales(wild)
    found = {tuple(cell) for cell in np.argwhere(scales["cell_status"].values == 4).tolist()}
    assert found == {(1, 2), (1, 7), (5, 2), (8, 11)}
    # the gauge counts the pixels of outliers, so that it does not move when one is found
    without = solve_flat_scales(level.where(scales["cell_status"] == 0))
    np.testing.assert_allclose(
        scales["model"].values[scales["cell_status"].values == 0],
        without["model"].values[scales["cell_status"].values == 0],
        rtol=1e-13,
    )
    without = solve_flat_scales(level)
    pulled = solve_flat_scales(wild, parameters=FlatScaleParameters(outliers="huber"))
    assert worst(pulled["detector_scale"], without["detector_scale"]) < 2e-3
    assert worst(solve_flat_scales(wild, parameters=PLAIN)["detector_scale"], response) > 0.05


def test_an_exposure_whose_lamp_drifts_is_left_out_as_a_whole():
    response, light = camera(12, 20)
    level = levels(response, light, 1e-3)
    level[6:, 9] *= 1.05
    with pytest.warns(UserWarning, match="exposures 109 contradict the others"):
        scales = solve_flat_scales(level)
    assert np.flatnonzero(scales["exposure_status"]).tolist() == [9]
    assert CellStatus(int(scales["exposure_status"][9])) is CellStatus.OUTLIER
    assert 0.7 < float(scales["chi2"]) / int(scales["dof"]) < 1.3
    pull = (scales["detector_scale"] - response) / scales["detector_scale_sigma"]
    assert float(np.abs(pull).max()) < 4.0
    usable = usable_exposure_scales(scales)
    assert usable["exposure"].values.tolist() == [100 + e for e in range(20) if e != 9]
    with pytest.raises(NoUsableDataError, match="agrees with the others"):
        usable_exposure_scales(scales.isel(exposure=[9]))
    assert float(scales["exposure_scale"][9]) == pytest.approx(1.025 * light[9], rel=0.03)
    assert float(np.abs(scales["residual"][:, 9]).max()) > 0.02


def test_a_saturated_exposure_is_left_out():
    response, light = camera(12, 20)
    level = levels(response, light, 1e-3)
    level[:, 4] = 60_000.0
    with pytest.warns(UserWarning, match="exposures 104 contradict"):
        scales = solve_flat_scales(level)
    assert worst(scales["detector_scale"], response) < 2e-3


def test_a_detector_that_wanders_is_flagged_and_the_others_are_right():
    response, light = camera(12, 20)
    level = levels(response, light, 1e-3)
    level[3] *= np.exp(np.random.default_rng(1).normal(0.0, 0.1, 20))
    scales = solve_flat_scales(level)
    assert np.flatnonzero(scales["detector_status"]).tolist() == [3]
    assert np.isfinite(scales["detector_scale"][3])
    others = np.delete(np.arange(12), 3)
    ratio = scales["detector_scale"].values[others] / response[others]
    assert ratio / ratio.mean() == pytest.approx(1.0, abs=2e-3)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_levels_are_like_scales_are_finite_where_they_rest_on_something(seed):
    rng = np.random.default_rng(seed)
    detectors, exposures = rng.integers(1, 14, 2)
    level = levels(np.exp(0.1 * rng.normal(size=detectors)), camera(2, exposures)[1], 1e-3, seed)
    wild = rng.random(level.shape) < rng.choice([0.0, 0.02, 0.1])
    level = level * np.where(wild, np.exp(rng.normal(size=level.shape)), 1.0)
    lost = rng.random(level.shape) < rng.choice([0.0, 0.05, 0.3])
    level = level.where(~lost, rng.choice([np.nan, 0.0, -1.0, np.inf]))
    level[0, 0] = 1e4
    place = ("detector", rng.normal(size=detectors))
    level = level.assign_coords(focal_x=place, focal_y=("detector", place[1][::-1] ** 2))
    parameters = FlatScaleParameters(
        gradient_order=int(rng.choice([0, 0, 1, 2])) if detectors > 5 else 0,
        weights=str(rng.choice(["variance", "counts", "uniform"])),
        systematic=rng.choice([1e-3, None]),
        outliers=str(rng.choice(["reject", "huber", "none"])),
        gauge=str(rng.choice(["counts", "equal", "median"])),
        on_disconnected="per_component",
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("error", RuntimeWarning)
        scales = solve_flat_scales(level, parameters=parameters)
    assert np.isfinite(scales["detector_scale"].values[scales["detector_cell_count"] > 0]).all()
    assert np.isfinite(scales["exposure_scale"].values[scales["exposure_status"] == 0]).all()
    assert int(scales["dof"]) >= 0
    usable = scales["cell_status"].values == CellStatus.OK
    assert np.isfinite(scales["model"].values[usable]).all()
