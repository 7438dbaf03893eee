"""Frames and skies by turns: the truth, where detectors are missing and one pass is biased."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.errors import ConfigurationError, NoUsableDataError
from skyloom.algorithms.sky import RefinementParameters, refine_sky_frames
from tests.algorithms.sky.night_scene import Night, night, true_backgrounds

EXPOSURES = 8
NOISE = 1e-3  # of the sky, in a bin


@cache
def scene() -> Night:
    return night(EXPOSURES, 3, 3, (128, 128))


def box() -> tuple[float, ...]:
    half = scene().half_width
    return (-half, half, -half, half)


def exposures(noise=0.0, *, complete=False):
    """Return bins of a night: each exposure lacks another third of the detectors."""
    of, rng = scene(), np.random.default_rng(5)
    truth = true_backgrounds(of)
    found = {}
    for k in range(EXPOSURES):
        level = of.levels[k]
        found[k] = {
            name: bins.assign(
                level=level * (bins["level"] + noise * rng.standard_normal(bins["level"].shape)),
                variance=xr.full_like(bins["level"], level**2 * max(noise, 1e-5) ** 2),
            )
            for name, bins in truth.items()
            if complete or (name + k) % 3
        }
    return found


def refined(bins, **options):
    return refine_sky_frames(
        bins, scene().transforms, focal_box=box(), parameters=RefinementParameters(**options)
    )


@cache
def expected():
    """Return the frames of the pattern alone, the projection on a plane taken off."""
    return refined({0: true_backgrounds(scene())}, sweeps=0).frames


def errors(frames):
    return np.concatenate(
        [(frames[name]["level"] - expected()[name]["level"]).values.ravel() for name in frames]
    )


def test_without_noise_sweeps_end_at_the_truth_though_detectors_are_missing() -> None:
    once, settled = refined(exposures(), sweeps=0), refined(exposures(), sweeps=80, tolerance=1e-8)
    assert np.std(errors(once.frames)) > 1e-4
    assert np.std(errors(settled.frames)) < 1e-6
    assert list(settled.changes) == sorted(settled.changes, reverse=True)


def test_with_noise_five_sweeps_leave_that_of_the_bins() -> None:
    found = refined(exposures(NOISE))
    floor = NOISE / np.sqrt(EXPOSURES * 2 / 3)
    assert np.std(errors(found.frames)) < 1.15 * floor
    pulls = errors(found.frames) / np.concatenate(
        [np.sqrt(frame["variance"].values).ravel() for frame in found.frames.values()]
    )
    assert 0.85 < np.std(pulls) < 1.15
    for k, fit in found.fits.items():
        assert abs(float(fit["scale"]) / scene().levels[k] - 1) < 4 * float(
            fit["scale_sigma"]
        ) / scene().levels[k] + 1e-3  # fmt: skip


def test_complete_exposures_have_nothing_to_refine() -> None:
    assert max(refined(exposures(complete=True)).changes) < 1e-6


def test_frames_have_no_part_of_the_smooth_functions_and_say_so() -> None:
    frames = refined(exposures(NOISE)).frames
    total = sum(float(frame["level"].astype(float).sum()) for frame in frames.values())
    assert abs(total) < 1e-4 * sum(float(abs(frame["level"]).sum()) for frame in frames.values())
    assert frames[0].attrs["gauge_basis"] == {
        "functions": "chebyshev",
        "order": 1,
        "focal_box": list(box()),
    }


def test_the_order_of_exposures_and_detectors_makes_no_difference() -> None:
    bins = exposures(NOISE)
    turned = {k: dict(reversed(bins[k].items())) for k in reversed(bins)}
    one, other = refined(bins, sweeps=2).frames, refined(turned, sweeps=2).frames
    for name in one:
        np.testing.assert_allclose(one[name]["level"], other[name]["level"], rtol=0, atol=1e-7)


def test_inputs_stay_as_they_were() -> None:
    bins = exposures(NOISE)
    before = {k: {n: b.copy(deep=True) for n, b in each.items()} for k, each in bins.items()}
    refined(bins, sweeps=1)
    for k, each in before.items():
        for name, item in each.items():
            xr.testing.assert_identical(bins[k][name], item)


def test_without_any_exposure_there_is_nothing_to_refine() -> None:
    with pytest.raises(ConfigurationError, match="backgrounds is empty"):
        refined({})


def test_an_exposure_without_any_measured_bin_is_refused_by_name() -> None:
    bins = exposures()
    bins[2] = {name: item.assign(level=item["level"] * np.nan) for name, item in bins[2].items()}
    with pytest.raises(NoUsableDataError, match="nothing was measured in any bin of"):
        refined(bins)
