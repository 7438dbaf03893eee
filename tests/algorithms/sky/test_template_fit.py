"""Skies of several templates: each has a scale of its own in the fit of an exposure."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.errors import ConfigurationError
from skyloom.algorithms.sky.correction import SkyCorrectionParameters, sky_correction
from skyloom.algorithms.sky.scale_parameters import SolveScaleParameters
from skyloom.algorithms.sky.subtraction import SkyFrameWarning, subtract_fit
from skyloom.algorithms.sky.templates import TemplateParameters, sky_templates, template_frame
from skyloom.algorithms.sky.visit_fit import fit_visit_background
from tests.algorithms.sky.scenes import Mosaic, bin_means

SHAPE, BIN = (96, 96), 8
SCALES = (2000.0, -700.0)
PLANE = SolveScaleParameters(order=1)
DIMS = ("bin_y", "bin_x")
NAMES = [f"D{index:02d}" for index in range(6)]


@pytest.fixture(scope="module")
def mosaics():
    """Return two cameras of the same detectors whose patterns differ."""
    return Mosaic(SHAPE, (2, 3), seed=1), Mosaic(SHAPE, (2, 3), seed=2)


@pytest.fixture(scope="module")
def patterns(mosaics):
    """Return the means of both patterns over bins, (template, bin_y, bin_x), by detector."""
    return {
        name: np.stack([bin_means(mosaic.patterns[name], BIN) for mosaic in mosaics])
        for name in NAMES
    }


def frames_of(patterns, noise=(0.0, 0.0), seed=0):
    rng = np.random.default_rng(seed)
    sigma = np.reshape(noise, (2, 1, 1))
    return {
        name: xr.Dataset(
            {
                "level": (("template", *DIMS), pattern + sigma * rng.normal(size=pattern.shape)),
                "variance": (("template", *DIMS), np.broadcast_to(sigma**2, pattern.shape)),
            },
            attrs={"box": [0, SHAPE[0], 0, SHAPE[1]]},
        )
        for name, pattern in patterns.items()
    }


def backgrounds_of(mosaics, patterns, rng, *, scales=SCALES, sigma=1.0):
    """Return bins of an exposure: a plane over the focal plane, both patterns, and noise."""
    made = {}
    for name in NAMES:
        smooth = bin_means(mosaics[0].smooth(name, (0.03, -0.02)), BIN)
        level = 2000.0 * smooth + np.tensordot(scales, patterns[name], 1)
        level = level + rng.normal(0.0, sigma, level.shape)
        made[name] = xr.Dataset(
            {
                "level": (DIMS, level, {"units": "electron"}),
                "variance": (DIMS, np.full(level.shape, sigma**2)),
                "count": (DIMS, np.full(level.shape, BIN * BIN)),
            },
            coords={"detector": name},
            attrs={"box": [0, SHAPE[0], 0, SHAPE[1]]},
        )
    return made


def fit_of(mosaics, backgrounds, frames, parameters=PLANE):
    return fit_visit_background(
        backgrounds, mosaics[0].transforms, sky_frames=frames, parameters=parameters
    )


def pulls_of(mosaics, patterns, number, noise=(0.0, 0.0)):
    rng = np.random.default_rng(5)
    pulls = []
    for index in range(number):
        frames = frames_of(patterns, noise, seed=index)
        fit = fit_of(mosaics, backgrounds_of(mosaics, patterns, rng), frames)
        pulls.append((fit["template_scale"] - SCALES) / fit["template_scale_sigma"])
    return np.array(pulls)


@pytest.mark.parametrize("noise", [(0.0, 0.0), (1e-3, 2e-3)])
def test_each_template_is_scaled_right_and_so_are_the_errors(mosaics, patterns, noise):
    pulls = pulls_of(mosaics, patterns, 32, noise)
    assert (abs(pulls.mean(axis=0)) < 3.5 / np.sqrt(len(pulls))).all()
    assert (pulls.std(axis=0) > 0.7).all()
    assert (pulls.std(axis=0) < 1.35).all()


def test_an_exact_sky_of_two_templates_is_found_exactly(mosaics, patterns):
    rng = np.random.default_rng(1)
    backgrounds = backgrounds_of(mosaics, patterns, rng, sigma=0.0)
    copies = {name: background.copy(deep=True) for name, background in backgrounds.items()}
    frames = frames_of(patterns)
    fit = fit_of(mosaics, backgrounds, frames)
    np.testing.assert_allclose(fit["template_scale"], SCALES, rtol=1e-8)
    assert float(fit["scale"]) == float(fit["template_scale"][0])
    assert float(fit["scale_sigma"]) == float(fit["template_scale_sigma"][0])
    for name in NAMES:
        xr.testing.assert_identical(backgrounds[name], copies[name])
    # the mean sky alone is scaled wrong, by what it shares with the other
    alone = fit_of(mosaics, backgrounds, {n: f.isel(template=0) for n, f in frames.items()})
    assert "template_scale" not in alone
    assert float(alone["rms"]) > 2.0


def test_one_template_is_a_sky_frame(mosaics, patterns):
    backgrounds = backgrounds_of(mosaics, patterns, np.random.default_rng(2))
    frames = frames_of(patterns, (1e-3, 1e-3))
    one = fit_of(mosaics, backgrounds, {n: f.isel(template=[0]) for n, f in frames.items()})
    plain = fit_of(mosaics, backgrounds, {n: f.isel(template=0) for n, f in frames.items()})
    xr.testing.assert_identical(one, plain)


def test_the_sky_of_a_fit_of_templates_is_taken_off_whole(mosaics, patterns):
    smooth = mosaics[0].smooth("D00", (0.03, -0.02))
    sky = 2000.0 * smooth
    sky += sum(s * m.patterns["D00"] for s, m in zip(SCALES, mosaics, strict=True))
    exposure = xr.Dataset(
        {"image": (("y", "x"), sky.astype(np.float32), {"units": "electron"})},
        coords={"detector": "D00"},
    )
    frames = frames_of(patterns)
    backgrounds = backgrounds_of(mosaics, patterns, np.random.default_rng(3), sigma=0.01)
    fit = fit_of(mosaics, backgrounds, frames)
    less, layers = subtract_fit(
        exposure, fit, sky_frame=frames["D00"], transform=mosaics[0].transforms["D00"],
        interpolation="constant",
    )  # fmt: skip
    assert len(layers) == 2
    left = bin_means(less["image"].values.astype(np.float64), BIN)
    assert abs(left).max() < 0.02
    with pytest.raises(ConfigurationError, match="2 templates, the fit 1"):
        subtract_fit(
            exposure, fit.drop_vars(["template_scale", "template_scale_sigma"]),
            sky_frame=frames["D00"], transform=mosaics[0].transforms["D00"],
        )  # fmt: skip
    with pytest.warns(SkyFrameWarning, match="not subtracted"):
        same, _ = subtract_fit(
            exposure, fit.assign(template_scale=fit["template_scale"] * np.nan),
            sky_frame=frames["D00"], smooth=False,
        )  # fmt: skip
    np.testing.assert_array_equal(same["image"], exposure["image"])


def test_templates_found_in_many_exposures_describe_another_one(mosaics, patterns):
    rng = np.random.default_rng(4)
    residuals = {}
    for exposure in range(10):
        part = rng.normal(0.0, 0.5)
        residuals[exposure] = {
            name: xr.Dataset(
                {
                    "level": (DIMS, mean + part * other + rng.normal(0.0, 5e-4, mean.shape)),
                    "variance": (DIMS, np.full(mean.shape, 25e-8)),
                },
                attrs={"box": [0, SHAPE[0], 0, SHAPE[1]]},
            )
            for name, (mean, other) in patterns.items()
        }
    found = sky_templates(residuals, parameters=TemplateParameters(count=2))
    backgrounds = backgrounds_of(mosaics, patterns, rng)
    both = fit_of(mosaics, backgrounds, found.frames)
    mean = fit_of(mosaics, backgrounds, {n: f.isel(template=0) for n, f in found.frames.items()})
    assert float(both["chi2"] / both["dof"]) == pytest.approx(1.0, abs=0.15)
    assert float(both["extra_scatter"]) < 0.5
    assert float(mean["extra_scatter"]) > 3.0
    # the sum of templates is the sky of this exposure, not its mean
    name = "D03"
    sky = template_frame(found.frames[name], both["template_scale"].values)
    truth = np.tensordot(SCALES, patterns[name], 1)
    assert np.std(sky["level"].values - truth) < 0.05 * np.std(truth)


def test_bins_that_no_exposure_observed_have_no_level_in_sums_of_templates(mosaics, patterns):
    frames = frames_of(patterns, (1e-3, 1e-3))
    holed = frames["D00"].copy(deep=True)
    holed["level"].data[:, 0, :3] = np.nan
    holed = holed.assign(variance=holed["variance"].where(np.isfinite(holed["level"]), np.inf))
    total = template_frame(holed, [1.0, 0.0])
    assert np.isnan(total["level"].values[0, :3]).all()
    assert np.isfinite(total["level"].values[1:]).all()
    backgrounds = backgrounds_of(mosaics, patterns, np.random.default_rng(6))
    fit = fit_of(mosaics, backgrounds, frames | {"D00": holed})
    assert int(fit["dropped_count"]) == 3
    assert np.isfinite(fit["template_scale"]).all()


def test_misuse_of_templates_is_named(mosaics, patterns):
    backgrounds = backgrounds_of(mosaics, patterns, np.random.default_rng(7))
    frames = frames_of(patterns)
    with pytest.raises(ConfigurationError, match="different numbers of templates"):
        fit_of(mosaics, backgrounds, frames | {"D01": frames["D01"].isel(template=0)})
    with pytest.raises(ConfigurationError, match="fits one template"):
        fit_of(mosaics, backgrounds, frames, SolveScaleParameters(mode="compat"))


def test_a_correction_takes_off_the_sky_of_all_templates(mosaics, patterns):
    rng = np.random.default_rng(8)
    exposures = {}
    for name in NAMES:
        sky = 2000.0 * mosaics[0].smooth(name, (0.03, -0.02))
        sky += sum(s * m.patterns[name] for s, m in zip(SCALES, mosaics, strict=True))
        image = (sky + rng.normal(0.0, 5.0, SHAPE)).astype(np.float32)
        exposures[name] = xr.Dataset({"image": (("y", "x"), image, {"units": "electron"})})
    parameters = SkyCorrectionParameters(bin_size=(BIN, BIN), fit=PLANE)
    quality = {}
    for number in (1, 2):
        frames = {n: f.isel(template=slice(number)) for n, f in frames_of(patterns).items()}
        correction = sky_correction(
            exposures, mosaics[0].transforms, sky_frames=frames, parameters=parameters
        )
        assert {len(layers) for layers in correction.layers.values()} == {2}
        quality[number] = correction.quality.sel(stage="after")
    assert float(quality[2]["large_scale_rms"]) < 0.3 * float(quality[1]["large_scale_rms"])
    assert float(quality[2]["detector_rms"]) < 1.0


@pytest.mark.parametrize("exposures", [3, 8])
def test_an_exposure_shares_its_noise_with_the_frame_that_it_is_part_of(exposures):
    """Own noise raises the scale as much as the noise of the frame lowers it; another's does not.

    The frame is noisy: its variance is 4 % and 1.5 % of its pattern's.
    """
    rng = np.random.default_rng(3)
    pattern = {name: rng.normal(0.0, 0.01, (12, 12)) for name in NAMES}
    transforms = {
        name: np.array([[1.0, 0.0, 100.0 * (index % 3)], [0.0, 1.0, 100.0 * (index // 3)]])
        for index, name in enumerate(NAMES)
    }
    levels = rng.uniform(500.0, 2000.0, exposures)
    errors = 0.003 * np.sqrt(1000.0 / levels)  # relative, of bins

    def drawn(level, error):
        return {
            name: xr.Dataset(
                {
                    "level": (DIMS, level * (1.0 + p + rng.normal(0.0, error, p.shape))),
                    "variance": (DIMS, np.full(p.shape, (level * error) ** 2)),
                    "count": (DIMS, np.full(p.shape, 64)),
                },
                attrs={"box": [0, 96, 0, 96]},
            )
            for name, p in pattern.items()
        }

    def ratio(given, frames, level, corrected):
        fit = fit_visit_background(
            given, transforms, sky_frames=frames, level=level,
            parameters=SolveScaleParameters(order=0, template_noise=corrected),
        )  # fmt: skip
        return float(fit["scale"]) / level - 1.0

    found = {key: [] for key in ("own", "own, corrected", "other", "other, corrected")}
    for _ in range(40):
        taken = [drawn(level, error) for level, error in zip(levels, errors, strict=True)]
        weights = errors**-2.0 / np.sum(errors**-2.0)
        frames = {
            name: xr.Dataset(
                {
                    "level": (
                        DIMS,
                        sum(
                            w * (one[name]["level"].values / level - 1.0)
                            for w, one, level in zip(weights, taken, levels, strict=True)
                        ),
                    ),
                    "variance": (DIMS, np.full((12, 12), 1.0 / np.sum(errors**-2.0))),
                },
                attrs={"box": [0, 96, 0, 96]},
            )
            for name in NAMES
        }
        other = drawn(levels[0], errors[0])
        for key, given in (("own", taken[0]), ("other", other)):
            found[key].append(ratio(given, frames, levels[0], corrected=False))
            found[f"{key}, corrected"].append(ratio(given, frames, levels[0], corrected=True))
    means = {key: np.mean(values) for key, values in found.items()}
    sigmas = {key: np.std(values) / np.sqrt(len(values)) for key, values in found.items()}
    noise = 1.0 / np.sum(errors**-2.0) / 0.01**2
    assert abs(means["own"]) < 3 * sigmas["own"]
    assert abs(means["other, corrected"]) < 3 * sigmas["other, corrected"]
    for key in ("own", "other"):
        assert means[f"{key}, corrected"] - means[key] == pytest.approx(noise, rel=0.15)
