"""The sky of a visit: joint fit of frame and smooth sky, and what is subtracted for it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.background import render_background
from skyloom.algorithms.background.geometry import bin_edges
from skyloom.algorithms.errors import (
    ConfigurationError,
    DroppedInputWarning,
    GeometryError,
    NoUsableDataError,
)
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.sky.correction import (
    SkyCorrectionParameters,
    bins_of_exposure,
    corrected_exposure,
    sky_correction,
)
from skyloom.algorithms.sky.focal_plane_parameters import FocalPlaneParameters
from skyloom.algorithms.sky.frame_bins import frame_in_bins, samples_of_bins
from skyloom.algorithms.sky.mosaic import focal_plane_mosaic
from skyloom.algorithms.sky.quality import boundary_steps, sky_quality
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.transfer import lsb_transfer
from skyloom.algorithms.sky.visit_fit import fit_visit_background
from skyloom.algorithms.vocabulary import MASK_PLANES, ScaleStatus
from tests.algorithms.sky.scenes import Mosaic, StepScene

SCALES = ("scale", "scale_sigma")
IDENTITY = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


@pytest.fixture(scope="module")
def mosaic():
    return Mosaic((192, 160), (2, 3))


@pytest.fixture(scope="module")
def visit(mosaic):
    """Return the exposures of a visit with stars under masks, and the frames."""
    rng = np.random.default_rng(4)
    exposures = {
        name: mosaic.exposure(name, 2000.0, rng, gradient=(0.03, -0.02), stars=15)
        for name in mosaic.patterns
    }
    return exposures, mosaic.frames(bin_size=8)


@pytest.fixture(scope="module")
def corrected(mosaic, visit):
    exposures, frames = visit
    return sky_correction(exposures, mosaic.transforms, sky_frames=frames, level=2000.0)


def test_scale_and_gradient_of_a_visit_are_recovered(mosaic, visit, corrected):
    fit = corrected.fit
    assert ScaleStatus(int(fit["status"])) is ScaleStatus.OK
    assert abs(float((fit["scale"] - 2000.0) / fit["scale_sigma"])) < 3.5
    assert float(fit["scale_sigma"]) < 0.02 * 2000.0
    slope = fit["coefficients"].isel(coefficient=1)
    # the box of the focal plane is wider than the detectors by their gaps
    assert abs(float(slope) - 0.03 * 2000.0 * 540 / 480) < 3
    for name, exposure in visit[0].items():
        less = corrected_exposure(exposure, corrected.layers[name])
        truth = exposure["image"] - mosaic.sky(name, 2000.0, (0.03, -0.02))
        difference = (less["image"] - truth).values
        assert abs(difference).max() < 6.0
        assert abs(difference.mean()) < 1.0


def test_the_figures_of_quality_fall_to_their_noise(corrected):
    before, after = (corrected.quality.sel(stage=stage) for stage in ("before", "after"))
    assert float(after["detector_rms"]) < 0.1 * float(before["detector_rms"])
    assert float(after["large_scale_rms"]) < 0.1 * float(before["large_scale_rms"])
    assert float(after["boundary_rms"]) < 1.5 * float(after["boundary_noise"])
    assert 0.9 < float(after["scale_to_level"]) < 1.1
    assert 0.1 < float(after["masked_fraction"]) < 0.3


def test_the_step_scene_of_the_survey_pipeline():
    scene = StepScene(4)
    exposures = scene.exposures()
    # bins as those of the frame, whose noise the fit knows
    parameters = SkyCorrectionParameters(bin_size=(8, 8))
    correction = sky_correction(
        exposures, scene.transforms, sky_frames=scene.frames(), backgrounds=scene.backgrounds(),
        parameters=parameters,
    )  # fmt: skip
    assert abs(float(correction.fit["scale"]) - 5.0) < 0.12
    assert abs(float((correction.fit["scale"] - 5.0) / correction.fit["scale_sigma"])) < 3.5
    means = []
    for name, exposure in exposures.items():
        layers = correction.layers[name]
        assert len(layers) == 3
        assert float(layers[0].background["level"].mean()) == -3000.0
        less = corrected_exposure(exposure, layers)
        means.append(float(less["image"].mean(dtype=np.float64)))
    assert abs(np.mean(means)) < 0.01
    factors = dict.fromkeys(exposures, 1.1)
    more = sky_correction(
        exposures, scene.transforms, sky_frames=scene.frames(), backgrounds=scene.backgrounds(),
        ratios=factors, parameters=parameters.model_copy(update={"apply_ratio": True}),
    )  # fmt: skip
    assert abs(float(more.fit["scale"]) - 5.5) < 0.12
    less = {
        name: corrected_exposure(exposure, more.layers[name], ratio=1.1)
        for name, exposure in exposures.items()
    }
    means = [float(one["image"].mean(dtype=np.float64)) for one in less.values()]
    assert abs(np.mean(means)) < 0.01
    np.testing.assert_allclose(less[0]["variance"], 650.0 * 1.21, rtol=1e-6)


def test_the_smooth_sky_stays_in_the_images_if_it_is_undone():
    scene = StepScene(4)
    exposures = scene.exposures()
    inputs = {"sky_frames": scene.frames(), "backgrounds": scene.backgrounds()}
    parameters = SkyCorrectionParameters(bin_size=(8, 8))
    plain = sky_correction(exposures, scene.transforms, **inputs, parameters=parameters)
    undone = sky_correction(
        exposures, scene.transforms, **inputs,
        parameters=parameters.model_copy(update={"undo_smooth": True}),
    )  # fmt: skip
    # the fit is the joint one all the same
    xr.testing.assert_identical(undone.fit, plain.fit)
    assert undone.second is None
    before, after = [], []
    for name, exposure in exposures.items():
        assert len(undone.layers[name]) == 2
        for ours, theirs in zip(undone.layers[name], plain.layers[name], strict=False):
            xr.testing.assert_identical(ours.background, theirs.background)
        before.append(float(exposure["image"].mean(dtype=np.float64)))
        less = corrected_exposure(exposure, undone.layers[name])
        after.append(float(less["image"].mean(dtype=np.float64)))
    assert abs(np.mean(after) - np.mean(before) - scene.removed) <= 0.01


@pytest.mark.parametrize("undo", [False, True])
def test_a_second_smooth_sky_is_made_of_what_the_fit_leaves(undo):
    scene = StepScene(4)
    exposures = scene.exposures()
    # of 64 pixels of the small scene, as 256 of the full one
    second = FocalPlaneParameters(cell_size=(256 * 0.015,) * 2, minimum_fraction=0.3, smoothing=1.0)
    parameters = SkyCorrectionParameters(bin_size=(8, 8), undo_smooth=undo, second=second)
    correction = sky_correction(
        exposures, scene.transforms, sky_frames=scene.frames(), backgrounds=scene.backgrounds(),
        parameters=parameters,
    )  # fmt: skip
    assert abs(float(correction.fit["scale"]) - 5.0) < 0.12
    means = []
    for name, exposure in exposures.items():
        assert len(correction.layers[name]) == (3 if undo else 4)
        less = corrected_exposure(exposure, correction.layers[name])
        means.append(float(less["image"].mean(dtype=np.float64)))
    assert abs(np.mean(means)) <= 0.01
    level = float(correction.second["scale"])
    assert abs(level - (3000.0 if undo else 0.0)) < 10.0


def test_a_second_smooth_sky_takes_what_is_too_fine_for_the_first(mosaic, visit):
    exposures, frames = visit
    wave = 20.0 * np.sin(np.arange(160) / 160 * 4 * np.pi)
    waved = {
        name: exposure.assign(
            image=(exposure["image"] + np.float32(wave)).assign_attrs(exposure["image"].attrs)
        )
        for name, exposure in exposures.items()
    }
    cells = FocalPlaneParameters(cell_size=(0.3, 0.3))
    rms = {}
    for second in (None, cells):
        parameters = SkyCorrectionParameters(
            bin_size=(10, 10), fit=SolveScaleParameters(order=1), second=second
        )
        correction = sky_correction(
            waved, mosaic.transforms, sky_frames=frames, parameters=parameters
        )
        rms[second] = float(correction.quality["large_scale_rms"].sel(stage="after"))
    assert rms[cells] < 0.3 * rms[None]
    typed = SkyCorrectionParameters(
        bin_size=(10, 10), second=cells.model_copy(update={"steps": "type"})
    )
    types = {name: "red" if index % 2 else "blue" for index, name in enumerate(exposures)}
    correction = sky_correction(
        exposures, mosaic.transforms, sky_frames=frames, detector_types=types, parameters=typed
    )
    assert {len(layers) for layers in correction.layers.values()} == {3}


def test_a_constant_in_the_image_goes_to_the_constant_alone(mosaic, visit, corrected):
    exposures, frames = visit
    lifted = {
        name: exposure.assign(
            image=(exposure["image"] + np.float32(1024.0)).assign_attrs(exposure["image"].attrs)
        )
        for name, exposure in exposures.items()
    }
    fit = sky_correction(lifted, mosaic.transforms, sky_frames=frames).fit
    for name in SCALES:
        np.testing.assert_allclose(fit[name], corrected.fit[name], rtol=0, atol=1e-5 * 1024.0)
    change = fit["coefficients"] - corrected.fit["coefficients"]
    np.testing.assert_allclose(change, [1024.0, *[0.0] * 5], rtol=0, atol=1e-5 * 1024.0)


def test_what_was_subtracted_before_makes_no_difference(mosaic, visit, corrected):
    exposures, frames = visit
    level = xr.DataArray(
        np.linspace(1900, 2100, 12, dtype=np.float32).reshape(3, 4), dims=("bin_y", "bin_x")
    ).assign_attrs(units="electron")
    layer = (xr.Dataset({"level": level}, attrs={"box": [0, 192, 0, 160]}), "natural_spline")
    less = {name: corrected_exposure(exposure, [layer]) for name, exposure in exposures.items()}
    again = sky_correction(
        less, mosaic.transforms, sky_frames=frames, backgrounds={name: [layer] for name in less}
    )
    for name in SCALES:
        np.testing.assert_allclose(again.fit[name], corrected.fit[name], rtol=1e-5)
    whole = corrected_exposure(less["D00"], again.layers["D00"])
    direct = corrected_exposure(exposures["D00"], corrected.layers["D00"])
    np.testing.assert_allclose(whole["image"], direct["image"], atol=0.01)


def test_pixels_under_the_mask_make_no_difference(mosaic, visit, corrected):
    exposures, frames = visit
    louder = {name: exposure.copy(deep=True) for name, exposure in exposures.items()}
    for exposure in louder.values():
        exposure["image"].data[exposure["mask"].values != 0] += 1e6
    again = sky_correction(louder, mosaic.transforms, sky_frames=frames, level=2000.0)
    xr.testing.assert_identical(again.fit, corrected.fit)
    xr.testing.assert_identical(again.quality, corrected.quality)


def test_the_order_of_detectors_makes_no_difference(mosaic, visit, corrected):
    exposures, frames = visit
    turned = dict(reversed(exposures.items()))
    again = sky_correction(turned, mosaic.transforms, sky_frames=frames, level=2000.0)
    xr.testing.assert_identical(again.fit, corrected.fit)


def test_inputs_stay_as_they_were(mosaic, visit):
    exposures, frames = visit
    before = {name: exposure.copy(deep=True) for name, exposure in exposures.items()}
    copies = {name: frame.copy(deep=True) for name, frame in frames.items()}
    sky_correction(exposures, mosaic.transforms, sky_frames=frames)
    for name in exposures:
        xr.testing.assert_identical(exposures[name], before[name])
        xr.testing.assert_identical(frames[name], copies[name])


def test_a_detector_without_frame_is_left_out_with_a_warning(mosaic, visit):
    exposures, frames = visit
    fewer = {name: frame for name, frame in frames.items() if name != "D03"}
    with pytest.warns(DroppedInputWarning, match="D03"):
        correction = sky_correction(exposures, mosaic.transforms, sky_frames=fewer)
    assert sorted(correction.layers) == sorted(fewer)


def test_a_masked_detector_loses_the_sky_of_the_others(mosaic, visit, corrected):
    exposures, frames = visit
    blind = exposures["D02"].copy(deep=True)
    blind["mask"].data[:] = MASK_PLANES["BAD"]
    correction = sky_correction(
        exposures | {"D02": blind}, mosaic.transforms, sky_frames=frames, level=2000.0
    )
    assert np.isnan(correction.fit["residual_mean"].sel(detector="D02"))
    less = corrected_exposure(exposures["D02"], correction.layers["D02"])
    same = corrected_exposure(exposures["D02"], corrected.layers["D02"])
    np.testing.assert_allclose(less["image"], same["image"], atol=6.0)


def test_two_detector_types_are_put_on_one_sky(mosaic, visit):
    exposures, frames = visit
    types = {name: "red" if index % 2 else "blue" for index, name in enumerate(exposures)}
    stepped = {
        name: exposure.assign(
            image=(exposure["image"] * np.float32(1.02 if types[name] == "red" else 1.0))
            .assign_attrs(exposure["image"].attrs)
        )
        for name, exposure in exposures.items()
    }  # fmt: skip
    parameters = SkyCorrectionParameters(fit=SolveScaleParameters(order=2, steps="type"))
    correction = sky_correction(
        stepped, mosaic.transforms, sky_frames=frames, detector_types=types, parameters=parameters
    )
    steps = correction.fit["step"]
    step = float(steps.sel(group="red") - steps.sel(group="blue"))
    assert abs(step - 40.0) < 2.0
    after = correction.quality.sel(stage="after")
    assert float(after["boundary_rms"]) < 1.5 * float(after["boundary_noise"])
    assert float(after["detector_rms"]) < 0.001 * 2000.0
    plain = sky_correction(stepped, mosaic.transforms, sky_frames=frames)
    assert float(plain.quality.sel(stage="after")["detector_rms"]) > 10.0


def test_a_visit_without_sky_frame_is_fitted_by_the_smooth_sky_alone(mosaic, visit):
    exposures, _ = visit
    parameters = SkyCorrectionParameters(use_sky_frame=False)
    correction = sky_correction(exposures, mosaic.transforms, parameters=parameters)
    assert ScaleStatus(int(correction.fit["status"])) is ScaleStatus.OK
    assert np.isnan(correction.fit["scale"])
    assert [len(layers) for layers in correction.layers.values()] == [1] * 6
    assert float(correction.fit["coefficients"][0]) == pytest.approx(2000.0, rel=0.01)


def test_misuse_of_the_correction_is_named(mosaic, visit):
    exposures, frames = visit
    with pytest.raises(ConfigurationError, match="exposures is empty"):
        sky_correction({}, mosaic.transforms, sky_frames=frames)
    with pytest.raises(ConfigurationError, match="sky_frames are not given"):
        sky_correction(exposures, mosaic.transforms)
    ratio = SkyCorrectionParameters(apply_ratio=True)
    with pytest.raises(ConfigurationError, match="D01, D02"):
        sky_correction(
            exposures, mosaic.transforms, sky_frames=frames, ratios={"D00": 1.0}, parameters=ratio
        )
    nothing = SkyCorrectionParameters(undo_smooth=True, use_sky_frame=False)
    with pytest.raises(ConfigurationError, match="neither use_sky_frame nor second"):
        sky_correction(exposures, mosaic.transforms, parameters=nothing)
    with pytest.raises(NoUsableDataError, match="no detector has all inputs"):
        sky_correction(exposures, {"other": IDENTITY}, sky_frames=frames)
    with pytest.raises(ConfigurationError, match="backgrounds is empty"):
        fit_visit_background({}, mosaic.transforms)


def make_bins(shape, bins, level, *, sigma=0.1, seed=0):
    """Return a background whose levels are a function of x and y, with noise."""
    rng = np.random.default_rng(seed)
    edges = [bin_edges(size, n) for size, n in zip(shape, bins, strict=True)]
    y, x = np.meshgrid(*((e[:-1] + e[1:] - 1) / 2 for e in edges), indexing="ij")
    dims = ("bin_y", "bin_x")
    return xr.Dataset(
        {
            "level": (dims, level(x, y) + rng.normal(0, sigma, x.shape), {"units": "electron"}),
            "variance": (dims, np.full(x.shape, sigma**2)),
            "count": (dims, np.outer(*(np.diff(e) for e in edges))),
        },
        attrs={"box": [0, shape[0], 0, shape[1]]},
    )


def test_detectors_of_other_sizes_and_bins_are_fitted_together():
    def level(x, y):
        return 100.0 + 0.2 * x - 0.1 * y

    moved = np.array([[1.0, 0.0, 210.0], [0.0, 1.0, 0.0]])
    backgrounds = {
        1: make_bins((200, 200), (10, 8), level, seed=1),
        2: make_bins((120, 64), (3, 4), lambda x, y: level(x + 210, y), seed=2),
        3: make_bins((40, 64), (1, 1), lambda x, y: level(x + 210, y + 130), seed=3),
    }
    transforms = {1: IDENTITY, 2: moved, 3: moved + np.array([[0, 0, 0], [0, 0, 130]])}
    fit = fit_visit_background(backgrounds, transforms, parameters=SolveScaleParameters(order=1))
    box = fit.attrs["focal_box"]
    expected = [
        level((box[0] + box[1]) / 2, (box[2] + box[3]) / 2),
        0.1 * (box[1] - box[0]),
        -0.05 * (box[3] - box[2]),
    ]
    np.testing.assert_allclose(fit["coefficients"], expected, atol=0.15)
    assert float(fit["chi2"] / fit["dof"]) < 1.5


def test_bins_with_few_pixels_or_no_variance_are_left_out():
    background = make_bins((80, 80), (8, 8), lambda x, y: 0 * x)
    background["count"].data[0] = 10
    background["level"].data[0] = 1e3
    background["variance"].data[1] = np.nan
    background["level"].data[1] = 1e3
    samples = samples_of_bins(background)
    assert samples.sizes["sample"] == 56
    fit = fit_visit_background({1: background}, {1: IDENTITY})
    assert abs(float(fit["coefficients"][0])) < 1.0
    assert int(fit["dropped_count"]) == 8


def test_cosmic_structure_in_some_bins_is_set_aside_on_both_sides():
    background = make_bins((320, 320), (32, 32), lambda x, y: 50.0 + 0 * x)
    background["level"].data[3:6, 3:6] += 20.0
    background["level"].data[20:22, 9:12] -= 20.0
    fit = fit_visit_background({1: background}, {1: IDENTITY})
    assert 15 <= int(fit["rejected_count"]) <= 20
    np.testing.assert_allclose(fit["coefficients"][0], 50.0, atol=0.02)


@pytest.mark.parametrize("bins", [(5, 7), (10, 16), (40, 64)])
def test_a_linear_frame_is_exact_in_any_bins(bins):
    shape = (160, 256)
    frame = make_bins(shape, (10, 16), lambda x, y: 0.001 * x - 0.002 * y, sigma=0.0)
    edges = [bin_edges(size, n) for size, n in zip(shape, bins, strict=True)]
    mean, noise = frame_in_bins(frame, (0, 160, 0, 256), *edges)
    y, x = ((e[:-1] + e[1:] - 1) / 2 for e in edges)
    np.testing.assert_allclose(mean, np.add.outer(-0.002 * y, 0.001 * x), atol=1e-13)
    assert noise.shape == bins


def test_the_frame_in_bins_is_the_mean_of_the_rendered_frame(mosaic):
    frame = mosaic.frames(noise=1e-3)["D00"]
    edges = [bin_edges(192, 7), bin_edges(160, 5)]
    mean, noise = frame_in_bins(frame, (0, 192, 0, 160), *edges)
    image = render_background(frame).values.astype(np.float64)
    for i, j in np.ndindex(7, 5):
        block = image[edges[0][i] : edges[0][i + 1], edges[1][j] : edges[1][j + 1]]
        assert mean[i, j] == pytest.approx(block.mean(), abs=1e-8)
    # the variance is that of many draws of the noise
    draws = []
    rng = np.random.default_rng(1)
    for _ in range(200):
        noisy = frame.assign(level=frame["level"] * 0 + rng.normal(0, 1e-3, frame["level"].shape))
        draws.append(frame_in_bins(noisy, (0, 192, 0, 160), *edges)[0])
    np.testing.assert_allclose(np.var(draws, axis=0), noise, rtol=0.5)
    np.testing.assert_allclose(np.var(draws, axis=0).mean(), noise.mean(), rtol=0.06)
    with pytest.raises(GeometryError, match="sky frame only"):
        frame_in_bins(frame, (0, 193, 0, 160), *edges)
    with pytest.raises(ConfigurationError, match="natural_spline"):
        frame_in_bins(frame, (0, 192, 0, 160), *edges, interpolation="sinc")


def test_facing_bins_across_a_gap_show_the_step():
    flat = make_bins((100, 100), (10, 10), lambda x, y: 0 * x, sigma=0.0)
    flat = flat.assign(variance=flat["variance"] + 0.01)
    transforms = {
        index: detector_transform((100, 100), pixel_size=0.01, offset=offset)
        for index, offset in enumerate([(0, 0), (1.05, 0), (0, 1.05), (1.05, 1.05)])
    }
    levels = [0.0, 2.0, 0.0, 2.0]
    backgrounds = {i: flat.assign(level=flat["level"] + levels[i]) for i in range(4)}
    steps = boundary_steps(backgrounds, transforms)
    # ten along each of four borders, and one across each diagonal
    assert steps.sizes["pair"] == 42
    np.testing.assert_allclose(
        sorted(abs(steps["step"].values)), [0.0] * 20 + [2.0] * 22, atol=1e-9
    )
    np.testing.assert_allclose(steps["sigma"], np.sqrt(0.02))
    quality = sky_quality(backgrounds, transforms)
    np.testing.assert_allclose(quality["boundary_rms"], 2 * np.sqrt(22 / 42))
    np.testing.assert_allclose(quality["detector_rms"], 1.0)
    empty = flat.assign(level=flat["level"] * np.nan)
    with pytest.raises(NoUsableDataError, match="no bin"):
        sky_quality({1: empty}, {1: IDENTITY})


def test_light_broader_than_the_smooth_functions_is_lost_and_smaller_light_kept():
    background = make_bins((600, 600), (60, 60), lambda x, y: 0 * x)
    samples = samples_of_bins(background)
    removed = {
        order: lsb_transfer(
            samples,
            [15.0, 60.0, 300.0],
            centers=[(299.5, 299.5)],
            parameters=SolveScaleParameters(order=order),
        )["removed"].values[:, 0]
        for order in (0, 2, 6)
    }
    # a constant takes 4 pi sigma² / area of a Gaussian that fits the field
    np.testing.assert_allclose(removed[0][0], 4 * np.pi * 15**2 / 600**2, rtol=0.01)
    for order in (0, 2, 6):
        assert np.all(np.diff(removed[order]) > 0)
    assert np.all(removed[0] < removed[2])
    assert np.all(removed[2] < removed[6])
    assert removed[6][2] > 0.99
    assert removed[2][0] < 0.03


def test_the_transfer_is_what_a_fit_does_to_injected_light():
    background = make_bins((600, 600), (60, 60), lambda x, y: 0 * x)
    parameters = SolveScaleParameters(order=3, loss="none", extra_scatter=False)
    samples = samples_of_bins(background)
    light = 100 * np.exp(
        -0.5 * ((samples["x"] - 250) ** 2 + (samples["y"] - 350) ** 2).values / 80.0**2
    )
    level = background["level"].values
    lit = background.assign(level=(("bin_y", "bin_x"), level + light.reshape(60, 60)))
    fits = [
        fit_visit_background({1: b}, {1: IDENTITY}, parameters=parameters)
        for b in (background, lit)
    ]
    change = fits[1]["coefficients"] - fits[0]["coefficients"]
    box = fits[0].attrs["focal_box"]
    table = np.zeros((4, 4))
    table[change["degree_x"], change["degree_y"]] = change
    u = (2 * samples["x"].values - box[0] - box[1]) / (box[1] - box[0])
    w = (2 * samples["y"].values - box[2] - box[3]) / (box[3] - box[2])
    taken = np.polynomial.chebyshev.chebval2d(u, w, table)
    expected = np.sum(taken * light) / np.sum(light**2)
    found = lsb_transfer(samples, [80.0], centers=[(250, 350)], parameters=parameters)
    np.testing.assert_allclose(found["removed"].values[0, 0], expected, rtol=1e-6)
    grid = lsb_transfer(samples, [80.0, 1e-9], parameters=parameters)
    assert grid["removed"].shape == (2, 9)
    with pytest.raises(NoUsableDataError, match="variance"):
        lsb_transfer(samples.assign(level_variance=0 * samples["level"]), [1.0])


def test_a_mosaic_shows_every_detector_where_it_is():
    y, x = np.mgrid[:64, :96]
    exposures, transforms = {}, {}
    for index, (offset, rotation) in enumerate([((-0.5, 0), 0), ((0.5, 0), 180), ((0, 1), 90)]):
        transform = detector_transform((64, 96), pixel_size=0.01, offset=offset, rotation=rotation)
        focal_x, focal_y = to_focal_plane(transform, x, y)
        image = (3 * focal_x + focal_y).astype(np.float32)
        exposures[index] = xr.Dataset({"image": (("y", "x"), image, {"units": "adu"})})
        transforms[index] = transform
    picture = focal_plane_mosaic(exposures, transforms, binning=4)
    expected = 3 * picture["focal_x"] + picture["focal_y"]
    difference = (picture - expected.transpose(*picture.dims)).values
    assert np.isfinite(difference).mean() > 0.5
    assert np.nanmax(abs(difference)) < 0.15
    assert picture.attrs["units"] == "adu"
    masked = exposures[0].assign(mask=(("y", "x"), np.full((64, 96), MASK_PLANES["BAD"])))
    assert np.isnan(focal_plane_mosaic({0: masked}, transforms)).all()
    with pytest.raises(ConfigurationError, match="nothing to show"):
        focal_plane_mosaic({}, transforms)
    with pytest.raises(ConfigurationError, match="binning"):
        focal_plane_mosaic(exposures, transforms, binning=0)


def test_bins_of_an_exposure_are_those_of_the_image_as_it_was(visit):
    exposure = visit[0]["D00"]
    level = xr.DataArray([[7.0]], dims=("bin_y", "bin_x"), attrs={"units": "electron"})
    layer = (xr.Dataset({"level": level}, attrs={"box": [0, 192, 0, 160]}), "constant")
    plain = bins_of_exposure(exposure)
    restored = bins_of_exposure(exposure, layers=[layer, layer])
    np.testing.assert_allclose(restored["level"], plain["level"] + 14.0, rtol=1e-6)
    doubled = bins_of_exposure(exposure, ratio=2.0)
    np.testing.assert_allclose(doubled["level"], 2 * plain["level"], rtol=1e-6)
    np.testing.assert_allclose(doubled["variance"], 4 * plain["variance"], rtol=1e-5)
