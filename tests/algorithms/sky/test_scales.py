"""The scale of a sky frame from samples of a focal plane."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.optimize import least_squares

from skyloom.algorithms.errors import ConfigurationError, DegenerateFitError
from skyloom.algorithms.sky.focal_basis import Regressors, chebyshev_terms, chebyshev_values
from skyloom.algorithms.sky.m_estimator import RobustOptions
from skyloom.algorithms.sky.robust_fit import fit_robustly
from skyloom.algorithms.sky.samples import measure_scale
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales
from skyloom.algorithms.vocabulary import ScaleStatus
from tests.algorithms.sky.scenes import Mosaic

DETECTORS, PER_DETECTOR = 6, 16
PLAIN = SolveScaleParameters(loss="none", extra_scatter=False, template_noise=False)


def detector_positions(detector):
    """Return x, y (mm) of the samples of one detector of a row of detectors."""
    x, y = np.meshgrid(np.arange(4.0) + 0.5, np.arange(4.0) + 0.5)
    return x.ravel() + 5 * detector, y.ravel()


def make_samples(
    rng, *, scale=1000.0, smooth=lambda x, y: 5.0 + 0 * x, sigma=0.1, pattern=0.01, outliers=0.0,
    template_sigma=0.0, detectors=DETECTORS, template=None,
):  # fmt: skip
    """Return the samples of each detector, with Gaussian errors of the sigma they state."""
    parts = []
    for detector in range(detectors):
        x, y = detector_positions(detector)
        truth = rng.normal(0.0, pattern, x.size) if template is None else template(x, y)
        errors = sigma * rng.uniform(0.5, 2.0, x.size)
        level = scale * truth + smooth(x, y) + rng.normal(0.0, 1.0, x.size) * errors
        bad = rng.random(x.size) < outliers
        level = level + bad * (20 * sigma + rng.exponential(100 * sigma, x.size))
        parts.append(
            xr.Dataset(
                {
                    "level": ("sample", level, {"units": "electron"}),
                    "level_variance": ("sample", errors**2),
                    "template": ("sample", truth + rng.normal(0.0, 1.0, x.size) * template_sigma),
                    "template_variance": ("sample", np.full(x.size, template_sigma**2)),
                },
                coords={
                    "focal_x": ("sample", x),
                    "focal_y": ("sample", y),
                    "detector": f"D{detector}",
                },
                attrs={"focal_box": [5.0 * detector, 5.0 * detector + 4.0, 0.0, 4.0]},
            )
        )
    return parts


def joined(parts, name):
    return np.concatenate([part[name].values for part in parts])


def status(fit):
    return ScaleStatus(int(fit["status"]))


def test_an_exact_template_over_a_constant_is_found_exactly():
    parts = make_samples(np.random.default_rng(1))
    exact = [part.assign(level=1234.5 * part["template"] + 77.0) for part in parts]
    fit = solve_scales(exact, parameters=SolveScaleParameters(order=0))
    np.testing.assert_allclose(fit["scale"], 1234.5, rtol=1e-12)
    np.testing.assert_allclose(fit["coefficients"], [77.0], rtol=1e-12)
    assert status(fit) is ScaleStatus.OK


def test_the_plain_fit_equals_weighted_least_squares_of_numpy():
    parts = make_samples(np.random.default_rng(2), smooth=lambda x, y: 50 + 3 * x - y * x)
    fit = solve_scales(parts, parameters=PLAIN.model_copy(update={"order": 3}))
    u, v = joined(parts, "focal_x") / 14.5 - 1, joined(parts, "focal_y") / 2 - 1
    design = np.column_stack(
        [chebyshev_values(u, v, chebyshev_terms(3)), joined(parts, "template")]
    )
    root = joined(parts, "level_variance") ** -0.5
    expected, square, *_ = np.linalg.lstsq(
        root[:, None] * design, root * joined(parts, "level"), rcond=None
    )
    covariance = np.linalg.inv((root[:, None] * design).T @ (root[:, None] * design))
    np.testing.assert_allclose(fit["scale"], expected[-1], rtol=1e-10)
    np.testing.assert_allclose(fit["coefficients"], expected[:-1], rtol=1e-8)
    np.testing.assert_allclose(fit["scale_sigma"], covariance[-1, -1] ** 0.5, rtol=1e-8)
    np.testing.assert_allclose(fit["coefficient_covariance"], covariance[:-1, :-1], rtol=1e-7)
    np.testing.assert_allclose(fit["chi2"] / fit["dof"], square[0] / fit["dof"], rtol=0.1)
    assert int(fit["dof"]) == 96 - 11


def test_the_huber_fit_equals_that_of_scipy():
    rng = np.random.default_rng(3)
    parts = make_samples(rng, outliers=0.1)
    options = {"loss": "huber", "extra_scatter": False, "order": 1, "template_noise": False}
    fit = solve_scales(parts, parameters=SolveScaleParameters(**options))
    u, v = joined(parts, "focal_x") / 14.5 - 1, joined(parts, "focal_y") / 2 - 1
    design = np.column_stack(
        [chebyshev_values(u, v, chebyshev_terms(1)), joined(parts, "template")]
    )
    root = joined(parts, "level_variance") ** -0.5
    weighted = root[:, None] * design
    inverse = np.linalg.inv(weighted.T @ weighted)
    units = np.sqrt(np.diag(inverse))
    solution = np.append(fit["coefficients"], fit["scale"])
    # the cut is in units of the scatter of studentised residuals
    free = 1 - np.einsum("ij,jk,ik->i", weighted, inverse, weighted)
    t = root * (joined(parts, "level") - design @ solution) / np.sqrt(free)
    scatter = max(1.0, np.sqrt(np.median(t**2) / 0.4549364))
    cut = (2.5 * scatter) ** 2 * free

    def huber(z):
        inside, size = z <= cut, np.sqrt(z / cut)
        slope = np.where(inside, 1.0, 1.0 / size)
        curvature = np.where(inside, 0.0, -0.5 / (size * z))
        return np.array([np.where(inside, z, cut * (2 * size - 1)), slope, curvature])

    found = least_squares(
        lambda p: root * (design @ (p * units) - joined(parts, "level")),
        solution / units,
        loss=huber,
        xtol=1e-12,
    )
    found.x *= units
    assert abs(float(fit["scale"]) - found.x[-1]) < 0.1 * float(fit["scale_sigma"])


def test_order_of_detectors_and_samples_makes_no_difference():
    parts = make_samples(np.random.default_rng(4), outliers=0.05)
    fit = solve_scales(parts)
    turned = solve_scales([part.isel(sample=slice(None, None, -1)) for part in parts[::-1]])
    for name in ("scale", "scale_sigma", "rms", "chi2", "extra_scatter"):
        np.testing.assert_allclose(turned[name], fit[name], rtol=1e-10)
    np.testing.assert_allclose(turned["residual_mean"], fit["residual_mean"], atol=1e-10)


def test_the_result_is_the_same_bit_for_bit_in_every_call():
    parts = make_samples(np.random.default_rng(5), outliers=0.05)
    assert solve_scales(parts).identical(solve_scales(parts))


@pytest.mark.parametrize("mode", ["joint", "compat"])
def test_the_scale_follows_the_unit_of_the_image(mode):
    parts = make_samples(np.random.default_rng(6), outliers=0.05, smooth=lambda x, y: 0 * x)
    parameters = SolveScaleParameters(mode=mode)
    bright = [
        part.assign(level=part["level"] * 7.0, level_variance=part["level_variance"] * 49.0)
        for part in parts
    ]
    fits = [solve_scales(these, parameters=parameters) for these in (parts, bright)]
    np.testing.assert_allclose(fits[1]["scale"], 7.0 * fits[0]["scale"], rtol=1e-10)
    np.testing.assert_allclose(fits[1]["scale_sigma"], 7.0 * fits[0]["scale_sigma"], rtol=1e-9)


def test_a_constant_added_to_the_image_changes_the_constant_alone():
    parts = make_samples(np.random.default_rng(7), outliers=0.05)
    lifted = [part.assign(level=part["level"] + 300.0) for part in parts]
    before, after = solve_scales(parts), solve_scales(lifted)
    np.testing.assert_allclose(after["scale"], before["scale"], rtol=1e-10)
    np.testing.assert_allclose(
        after["coefficients"] - before["coefficients"], [300, 0, 0], atol=1e-8
    )


def reference_loop(f, g):
    """Solve as the survey pipeline does."""
    keep = np.ones(len(f), bool)
    for _ in range(3):
        scale = np.linalg.lstsq(g[keep, None], f[keep], rcond=None)[0][0]
        residual = f - scale * g
        low, high = np.percentile(residual[keep], [25, 75])
        keep[np.abs(residual) > 3.0 * 0.741 * (high - low)] = False
    return np.linalg.lstsq(g[keep, None], f[keep], rcond=None)[0][0], keep.sum()


@pytest.mark.parametrize("seed", range(5))
def test_the_compatible_mode_is_the_loop_of_the_survey_pipeline(seed):
    parts = make_samples(np.random.default_rng(seed), outliers=0.1, smooth=lambda x, y: 0.2 * x)
    parts[0]["level"][2] = np.nan
    fit = solve_scales(parts, parameters=SolveScaleParameters(mode="compat"))
    good = np.isfinite(joined(parts, "level"))
    scale, count = reference_loop(joined(parts, "level")[good], joined(parts, "template")[good])
    np.testing.assert_allclose(fit["scale"], scale, rtol=1e-12)
    assert int(fit["used_count"]) == count
    assert int(fit["dropped_count"]) == 1


def test_the_compatible_mode_keeps_exact_samples_when_most_are_exact():
    g = np.arange(1.0, 17.0)
    f = 3.0 * g
    f[[2, 9]] += [1.0, 40.0]
    samples = xr.Dataset(
        {
            "level": ("sample", f),
            "level_variance": ("sample", np.ones(16)),
            "template": ("sample", g),
            "template_variance": ("sample", np.zeros(16)),
        },
        coords={"x": ("sample", g), "y": ("sample", g)},
    )
    fit = solve_scales(samples, parameters=SolveScaleParameters(mode="compat"))
    assert float(fit["scale"]) == pytest.approx(reference_loop(f, g)[0], rel=1e-14)


def test_stars_in_some_samples_do_not_move_the_scale():
    rng = np.random.default_rng(8)
    pulls = []
    for _ in range(20):
        fit = solve_scales(make_samples(rng, outliers=0.1))
        pulls.append(float((fit["scale"] - 1000.0) / fit["scale_sigma"]))
        assert 2 <= int(fit["rejected_count"]) <= 22
    assert abs(np.mean(pulls)) < 0.7
    assert np.std(pulls) < 1.5


def test_a_sample_set_aside_at_the_start_returns():
    # the outliers tilt the first line, from which good samples at the other end seem far
    x = np.linspace(-1.0, 1.0, 40)
    data = 2.0 + 3.0 * x + np.random.default_rng(9).normal(0.0, 0.01, x.size)
    data[[30, 34, 38]] += 300.0
    line = Regressors(x, 0 * x, [(0, 0), (1, 0)], np.zeros(x.size, np.int64), 1, None)
    fit = fit_robustly(line, data, np.full(x.size, 1e-4))
    np.testing.assert_array_equal(np.flatnonzero(fit.robust < 0.5), [30, 34, 38])
    np.testing.assert_allclose(fit.solution, [2.0, 3.0], atol=0.02)


def test_sources_pull_less_with_asymmetric_weights():
    rng = np.random.default_rng(10)
    x = rng.uniform(-1, 1, 4000)
    data = rng.normal(0.0, 1.0, x.size) + (rng.random(x.size) < 0.2) * rng.exponential(4.0, x.size)
    constant = Regressors(x, x, [(0, 0)], np.zeros(x.size, np.int64), 1, None)
    levels = [
        fit_robustly(
            constant, data, np.ones(x.size), options=RobustOptions(asymmetry=a, extra_scatter=False)
        ).solution[0]
        for a in (1.0, 1.5)
    ]
    assert 0 < levels[1] < levels[0]


def test_a_smooth_sky_that_resembles_the_frame_is_told_apart():
    """The frame is 63 % explained by a plane: a sequential fit would find 0.37 of the truth."""
    rng = np.random.default_rng(11)

    def template(x, y):
        u = x / 14.5 - 1
        return 0.01 * (np.sqrt(3) * 0.79 * u + np.sqrt(1 - 0.79**2) * rng.normal(0, 1, x.size))

    fits = [
        solve_scales(
            make_samples(rng, smooth=lambda x, y: 100 + 20 * x, template=template, sigma=1)
        )
        for _ in range(90)
    ]
    pulls = np.array([(fit["scale"] - 1000.0) / fit["scale_sigma"] for fit in fits])
    scales = np.array([float(fit["scale"]) for fit in fits])
    assert 0.5 < np.mean([float(fit["collinearity"]) for fit in fits]) < 0.75
    assert abs(scales.mean() / 1000 - 1) < 4 * scales.std() / 1000 / np.sqrt(len(fits))
    assert 0.8 < pulls.std() < 1.2


def test_noise_of_the_template_is_corrected_for():
    rng = np.random.default_rng(12)
    noisy = [make_samples(rng, template_sigma=0.005, sigma=0.5) for _ in range(40)]
    plain = SolveScaleParameters(template_noise=False)
    uncorrected = np.mean([float(solve_scales(s, parameters=plain)["scale"]) for s in noisy])
    fits = [solve_scales(s) for s in noisy]
    scales = np.array([float(fit["scale"]) for fit in fits])
    pulls = np.array([float((fit["scale"] - 1000) / fit["scale_sigma"]) for fit in fits])
    assert 0.75 < uncorrected / 1000 < 0.85
    assert abs(scales.mean() / 1000 - 1) < 0.02
    assert 0.75 < pulls.std() < 1.25


def test_error_bars_hold_and_extra_scatter_is_found():
    rng = np.random.default_rng(13)
    pulls, sandwich, scatter = [], [], []
    for _ in range(120):
        parts = make_samples(rng, detectors=3)
        rough = [part.assign(level=part["level"] + rng.normal(0, 0.3, 16)) for part in parts]
        fit = solve_scales(rough)
        pulls.append(float((fit["scale"] - 1000) / fit["scale_sigma"]))
        sandwich.append(float((fit["scale"] - 1000) / fit["scale_sigma_sandwich"]))
        scatter.append(float(fit["extra_scatter"]))
        np.testing.assert_allclose(fit["chi2"] / fit["dof"], 1.0, atol=0.02)
    assert 0.8 < np.std(pulls) < 1.2
    assert 0.8 < np.std(sandwich) < 1.2
    assert abs(np.mean(scatter) / 0.3 - 1) < 0.1


def test_without_variances_the_scatter_of_the_residuals_gives_the_errors():
    rng = np.random.default_rng(14)
    pulls = []
    for _ in range(90):
        parts = make_samples(rng, detectors=2)
        blind = [part.assign(level_variance=0 * part["level_variance"]) for part in parts]
        fit = solve_scales(blind)
        pulls.append(float((fit["scale"] - 1000) / fit["scale_sigma"]))
    assert 0.8 < np.std(pulls) < 1.2
    assert float(fit["extra_scatter"]) == pytest.approx(float(fit["rms"]), rel=0.2)


def test_samples_without_value_or_variance_are_left_out_and_counted():
    parts = make_samples(np.random.default_rng(15))
    clean = solve_scales([part.isel(sample=slice(3, None)) for part in parts])
    for part in parts:
        part["level"][0] = np.nan
        part["level_variance"][1] = 0.0
        part["level_variance"][2] = np.nan
    fit = solve_scales(parts)
    assert int(fit["dropped_count"]) == 3 * DETECTORS
    np.testing.assert_allclose(fit["scale"], clean["scale"], rtol=1e-10)


def test_a_constant_frame_has_no_scale_of_its_own():
    parts = make_samples(np.random.default_rng(16), template=lambda x, y: 0.02 + 0 * x)
    fit = solve_scales(parts)
    assert status(fit) is ScaleStatus.DEGENERATE
    assert np.isnan(float(fit["scale"]))
    assert float(fit["collinearity"]) == 1.0
    expected = solve_scales(parts, level=2000.0)
    assert status(expected) is ScaleStatus.FROM_PRIOR
    np.testing.assert_allclose(expected["scale"], 2000.0, rtol=1e-6)
    np.testing.assert_allclose(expected["scale_sigma"], 600.0, rtol=0.02)
    with pytest.raises(DegenerateFitError, match="lower the order"):
        solve_scales(parts, parameters=SolveScaleParameters(on_degenerate="raise"))


def test_a_frame_of_zeros_has_the_scale_zero_and_one_of_nan_none():
    parts = make_samples(np.random.default_rng(17), template=lambda x, y: 0 * x)
    fit = solve_scales(parts)
    assert status(fit) is ScaleStatus.DEGENERATE
    assert float(fit["scale"]) == 0.0
    compat = solve_scales(parts, parameters=SolveScaleParameters(mode="compat"))
    assert (status(compat), float(compat["scale"])) == (ScaleStatus.DEGENERATE, 0.0)
    empty = [part.assign(template=np.nan * part["template"]) for part in parts]
    fit = solve_scales(empty)
    assert status(fit) is ScaleStatus.DEGENERATE
    assert np.isnan(float(fit["scale"]))


def test_data_that_the_model_meets_exactly_have_residuals_and_errors_of_zero():
    parts = make_samples(np.random.default_rng(3), pattern=0.0, sigma=0.0, scale=1.0)
    for template in (0.0, 0.01):
        given = [
            part.assign(template=part["template"] * 0 + template * part.focal_x) for part in parts
        ]
        given = [part.assign(level=part["level"] + 100 * part["template"]) for part in given]
        fit = solve_scales(given, parameters=SolveScaleParameters(order=0))
        found = fit["scale"].item(), fit["scale_sigma_sandwich"].item()
        if template:
            assert found == pytest.approx((100.0, 0.0), abs=1e-9)
        else:
            assert status(fit) == ScaleStatus.DEGENERATE
            assert found[0] == 0.0
        np.testing.assert_allclose(fit["residual_mean"], 0.0, atol=1e-9)


@pytest.mark.parametrize("mode", ["joint", "compat"])
def test_an_exposure_without_any_sample_is_told_by_its_status(mode):
    parts = make_samples(np.random.default_rng(18))
    masked = [part.assign(level=np.nan * part["level"]) for part in parts]
    fit = solve_scales(masked, parameters=SolveScaleParameters(mode=mode))
    assert status(fit) is ScaleStatus.NO_DATA
    assert np.isnan(float(fit["scale"]))
    assert int(fit["dropped_count"]) == DETECTORS * PER_DETECTOR


def test_image_and_template_valid_at_different_samples_give_no_scale():
    parts = make_samples(np.random.default_rng(19), detectors=1)
    even = np.arange(16) % 2 == 0
    apart = parts[0].assign(
        level=parts[0]["level"].where(even), template=parts[0]["template"].where(~even)
    )
    fit = solve_scales(apart)
    assert status(fit) is not ScaleStatus.OK
    assert np.isnan(float(fit["scale"]))


def test_a_handful_of_samples_gives_a_scale_that_is_flagged():
    parts = make_samples(np.random.default_rng(20), detectors=1)
    fit = solve_scales(parts[0].isel(sample=slice(0, 7)))
    assert status(fit) is ScaleStatus.FEW_SAMPLES
    assert abs(float((fit["scale"] - 1000) / fit["scale_sigma"])) < 5


def test_one_detector_is_enough():
    fit = solve_scales(make_samples(np.random.default_rng(21), detectors=1))
    assert status(fit) is ScaleStatus.OK
    assert abs(float((fit["scale"] - 1000) / fit["scale_sigma"])) < 4


def test_smooth_terms_that_the_samples_cannot_tell_apart_are_left_out():
    samples = make_samples(np.random.default_rng(22), sigma=1e-3)
    row = [part.assign_coords(focal_y=0 * part["focal_y"] + 2.0) for part in samples]
    fit = solve_scales(row, parameters=SolveScaleParameters(order=2), focal_box=[0, 30, 0, 4])
    assert status(fit) is ScaleStatus.OK
    np.testing.assert_array_equal(fit["coefficients"][fit["degree_y"] > 0], 0.0)
    np.testing.assert_allclose(fit["scale"], 1000.0, rtol=1e-3)


def test_moonlight_that_outshines_the_frame_does_not_hide_it():
    rng = np.random.default_rng(23)

    def moon(x, y):
        return 3e4 * (1 + 0.02 * x + 0.005 * y + 0.001 * x**2 - 5e-4 * x * y)

    for order in (2, 3):
        fit = solve_scales(
            make_samples(rng, smooth=moon, scale=300.0),
            parameters=SolveScaleParameters(order=order),
        )
        assert status(fit) is ScaleStatus.OK
        assert abs(float((fit["scale"] - 300) / fit["scale_sigma"])) < 4
    # a plane is too little for it, and the fit says so
    flat = solve_scales(make_samples(rng, smooth=moon, scale=300.0))
    assert float(flat["extra_scatter"]) > 100 * float(fit["extra_scatter"])


def test_a_step_between_detector_types_is_found_within_its_error():
    rng = np.random.default_rng(24)
    parts = make_samples(rng, smooth=lambda x, y: 500 + 0.5 * x)
    types = {f"D{i}": "e2v" if i % 2 else "itl" for i in range(DETECTORS)}
    stepped = [
        part.assign(level=part["level"] + 10.0 * (types[str(part["detector"].values)] == "e2v"))
        for part in parts
    ]
    for how, count in (("type", 2), ("detector", DETECTORS)):
        fit = solve_scales(
            stepped, detector_types=types, parameters=SolveScaleParameters(steps=how)
        )
        assert fit.sizes["group"] == count
        assert float(fit["step"].sum()) == pytest.approx(0.0, abs=1e-9)
        assert abs(float((fit["scale"] - 1000) / fit["scale_sigma"])) < 4
    types_only = solve_scales(
        stepped, detector_types=types, parameters=SolveScaleParameters(steps="type")
    )
    step = types_only["step"].sel(group="e2v") - types_only["step"].sel(group="itl")
    assert float(step) == pytest.approx(10.0, abs=0.2)
    shrunk = solve_scales(
        stepped,
        detector_types=types,
        parameters=SolveScaleParameters(steps="type", step_sigma=1e-3),
    )
    assert abs(float(shrunk["step"].sel(group="e2v"))) < 0.5


def test_the_mean_residual_tells_a_detector_that_is_off():
    parts = make_samples(np.random.default_rng(25))
    parts[2] = parts[2].assign(level=parts[2]["level"] + 0.15)
    fit = solve_scales(parts, parameters=SolveScaleParameters(extra_scatter=False))
    assert int(np.argmax(abs(fit["residual_pull"].values))) == 2
    assert float(fit["residual_mean"][2]) > 0.05


def test_exposures_along_a_dimension_are_solved_one_by_one():
    rng = np.random.default_rng(26)
    nights = [make_samples(rng, scale=scale) for scale in (500.0, 2000.0)]
    together = [
        xr.concat([night[i] for night in nights], dim="exposure").assign_coords(exposure=[7, 8])
        for i in range(DETECTORS)
    ]
    fit = solve_scales(together)
    for index, night in enumerate(nights):
        alone = solve_scales(night)
        np.testing.assert_array_equal(fit["scale"][index], alone["scale"])
        np.testing.assert_array_equal(fit["residual_mean"][index], alone["residual_mean"])
    np.testing.assert_array_equal(fit["exposure"], [7, 8])
    # detectors along a dimension are the same as a list of detectors
    stacked = xr.concat(
        nights[0], dim="detector", coords="different", compat="equals", combine_attrs="drop"
    )
    box = [0.0, 29.0, 0.0, 4.0]
    np.testing.assert_array_equal(
        solve_scales(stacked, focal_box=box)["scale"], solve_scales(nights[0])["scale"]
    )


def test_an_exposure_without_one_of_the_detectors_is_solved_from_the_others():
    rng = np.random.default_rng(27)
    nights = [make_samples(rng, scale=scale) for scale in (500.0, 2000.0)]
    box = [0.0, 29.0, 0.0, 4.0]
    together = [
        xr.concat([night[i] for night in nights], dim="exposure").assign_coords(exposure=[7, 8])
        for i in range(DETECTORS)
    ]
    together[2] = together[2].sel(exposure=[7])
    fit = solve_scales(together, focal_box=box)
    np.testing.assert_array_equal(fit["exposure"], [7, 8])
    others = [part for i, part in enumerate(nights[1]) if i != 2]
    np.testing.assert_allclose(
        fit["scale"], [solve_scales(night, focal_box=box)["scale"] for night in (nights[0], others)]
    )


def test_the_samples_given_stay_as_they_were():
    parts = make_samples(np.random.default_rng(27), outliers=0.1)
    before = [part.copy(deep=True) for part in parts]
    solve_scales(parts)
    for part, copy in zip(parts, before, strict=True):
        xr.testing.assert_identical(part, copy)


def test_misuse_is_named():
    parts = make_samples(np.random.default_rng(28))
    with pytest.raises(ConfigurationError, match="empty"):
        solve_scales([])
    with pytest.raises(ConfigurationError, match=r"no type of the detectors \['D0'"):
        solve_scales(parts, parameters=SolveScaleParameters(steps="type"))
    with pytest.raises(ValueError, match="template_variance"):
        solve_scales([part.drop_vars("template_variance") for part in parts])
    mixed = [parts[0], parts[1].assign(level=parts[1]["level"].assign_attrs(units="adu"))]
    with pytest.raises(ValueError, match="one unit"):
        solve_scales(mixed)
    with pytest.raises(ValueError, match="focal plane"):
        solve_scales([parts[0], parts[1].drop_vars(["focal_x", "focal_y"])])
    with pytest.raises(ValueError, match="steps"):
        SolveScaleParameters(steps=["detector", "type"])


@pytest.mark.parametrize("name", ["exposure", "physical_filter", "camera"])
def test_samples_of_several_exposures_filters_or_cameras_are_refused(name):
    mosaic = Mosaic((64, 64), (1, 2))
    rng = np.random.default_rng(1)
    frames = mosaic.frames(bin_size=8)
    samples = [measure_scale(mosaic.exposure(n, 900.0, rng, stars=0), frames[n]) for n in frames]
    same = [part.assign_coords({name: "a"}) for part in samples]
    assert int(solve_scales(same)["used_count"]) > 8
    with pytest.raises(ValueError, match=f"of one {name} are needed, they are of a, b"):
        solve_scales([same[0], samples[1].assign_coords({name: "b"})])
