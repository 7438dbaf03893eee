"""Bins of a sky frame that no exposure observed say nothing of the scale."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import fill_bad, measure_background
from skyloom.algorithms.sky.frame_bins import frame_in_bins, frame_planes
from skyloom.algorithms.sky.samples import measure_scale
from skyloom.algorithms.sky.scale_parameters import MeasureScaleParameters, SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales
from skyloom.algorithms.sky.visit_fit import fit_visit_background
from tests.algorithms.sky.scenes import Mosaic, bin_means

LEVEL = 2000.0
PLANE = SolveScaleParameters(order=1)
DIMS = ("bin_y", "bin_x")


def half_observed(frame, *, levels=None, fill=None):
    """Return a frame whose right half no exposure observed, filled as skies are or by a number."""
    level = frame["level"].values.astype(np.float64) if levels is None else levels
    empty = np.zeros(level.shape, np.bool_)
    empty[:, level.shape[1] // 2 :] = True
    filled = fill_bad(level, empty)[0] if fill is None else np.where(empty, fill, level)
    flag = np.uint8(v.BinFlag.EMPTY | v.BinFlag.FILLED)
    return frame.assign(
        level=(DIMS, filled.astype(np.float32), {"units": ""}),
        variance=(DIMS, np.where(empty, np.nan, 1e-12).astype(np.float32), {"units": ""}),
        flags=(DIMS, np.where(empty, flag, 0).astype(np.uint8)),
        exposure_count=(DIMS, np.where(empty, 0, 9).astype(np.int16)),
    )


@pytest.fixture(scope="module")
def mosaic():
    return Mosaic((128, 128), (2, 3), seed=9)


def exposure_of(mosaic, rng):
    return {
        name: mosaic.exposure(name, LEVEL, rng, gradient=(0.03, -0.02), stars=5)
        for name in mosaic.patterns
    }


def fit_of_bins(mosaic, exposures, frames, bin_size=8):
    bins = {
        name: measure_background(
            exposure, bin_size=(bin_size, bin_size), reject=("DETECTED",), debias=True
        )
        for name, exposure in exposures.items()
    }
    return fit_visit_background(bins, mosaic.transforms, sky_frames=frames, parameters=PLANE)


def fit_of_samples(mosaic, exposures, frames):
    return solve_scales(
        [
            measure_scale(
                exposures[name], frames[name], transform=mosaic.transforms[name],
                expected_scale=LEVEL,
            )
            for name in frames
        ],
        parameters=PLANE,
    )  # fmt: skip


@pytest.mark.parametrize("way", ["samples", "bins", "coarse bins"])
def test_the_scale_is_true_and_so_is_its_error_with_half_of_the_bins_filled(mosaic, way):
    rng = np.random.default_rng(3)
    frames = {
        # over its own bins the levels are means, elsewhere they are points of the pattern
        name: half_observed(
            frame, levels=bin_means(mosaic.patterns[name], 8) if way == "bins" else None
        )
        for name, frame in mosaic.frames(bin_size=8).items()
    }
    pulls = []
    for _ in range(24):
        exposures = exposure_of(mosaic, rng)
        if way == "samples":
            fit = fit_of_samples(mosaic, exposures, frames)
        else:
            fit = fit_of_bins(mosaic, exposures, frames, 8 if way == "bins" else 16)
        pulls.append(float((fit["scale"] - LEVEL) / fit["scale_sigma"]))
    assert abs(np.mean(pulls)) < 3.5 / np.sqrt(len(pulls))
    assert 0.65 < np.std(pulls) < 1.4


def test_what_is_filled_in_makes_no_difference(mosaic):
    exposures = exposure_of(mosaic, np.random.default_rng(4))
    names = ("scale", "scale_sigma", "chi2", "used_count")
    fits, samples = [], []
    constant = MeasureScaleParameters(interpolation="constant")
    for fill in (None, 0.0, -3.0):
        frames = {
            name: half_observed(frame, fill=fill)
            for name, frame in mosaic.frames(bin_size=8).items()
        }
        fits.append(fit_of_bins(mosaic, exposures, frames)[list(names)])
        samples.append(measure_scale(exposures["D00"], frames["D00"], parameters=constant))
    for fit, sample in zip(fits[1:], samples[1:], strict=True):
        xr.testing.assert_identical(fit, fits[0])
        xr.testing.assert_identical(sample, samples[0])
    # a sample on the half that was never observed has no pixel
    assert (samples[0]["count_used"].values.reshape(4, 4)[:, 2:] == 0).all()
    assert int(fits[0]["used_count"]) <= 6 * 128


def test_a_bin_with_a_level_but_without_variance_was_not_observed():
    level = np.array([[0.01, -0.01, 0.02, 0.03]])
    frame = xr.Dataset(
        {"level": (DIMS, level), "variance": (DIMS, [[1e-6, 1e-6, np.nan, -1.0]])},
        attrs={"box": [0, 1, 0, 8]},
    )
    planes = frame_planes(frame)
    assert planes.observed.tolist() == [[True, True, False, False]]
    np.testing.assert_allclose(planes.variance, 1e-6)
    assert frame_planes(frame.drop_vars("variance")).observed.all()
    # where no bin has a variance nothing is known of any
    unknown = frame_planes(frame.assign(variance=frame["level"] * np.nan))
    assert unknown.observed.all()
    assert np.isnan(unknown.variance).all()


def test_bins_across_the_edge_of_what_was_observed_know_how_little_they_say():
    level = np.array([[0.01, -0.01, 0.01, -0.01, 0.0, 0.0, 0.0, 0.0]])
    frame = xr.Dataset(
        {
            "level": (DIMS, level),
            "variance": (DIMS, np.full(level.shape, 1e-8)),
            "flags": (DIMS, np.array([[0, 0, 0, 0, 5, 5, 5, 5]], np.uint8)),
        },
        attrs={"box": [0, 8, 0, 64]},
    )
    edges = np.array([0, 24, 36, 50, 64])
    _, variance = frame_in_bins(
        frame, (0, 8, 0, 64), np.array([0, 8]), edges, interpolation="constant"
    )
    assert variance[0, 0] < 1e-8
    # a third of the second bin was filled, by values that err alike by the spread of the others
    np.testing.assert_allclose(variance[0, 1], (1 / 3) ** 2 * 1e-4, rtol=0.01)
    assert np.isinf(variance[0, 2:]).all()


def test_a_frame_that_no_exposure_observed_gives_no_scale(mosaic):
    exposures = exposure_of(mosaic, np.random.default_rng(5))
    frames = {
        name: frame.assign(exposure_count=(DIMS, np.zeros(frame["level"].shape, np.int16)))
        for name, frame in mosaic.frames(bin_size=8).items()
    }
    for fit in (fit_of_bins(mosaic, exposures, frames), fit_of_samples(mosaic, exposures, frames)):
        assert v.ScaleStatus(int(fit["status"])) is v.ScaleStatus.DEGENERATE
        assert np.isnan(float(fit["scale"]))
