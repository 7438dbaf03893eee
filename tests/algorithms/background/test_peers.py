"""Backgrounds beside those of independent packages."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sep
from astropy.stats import SigmaClip, sigma_clip
from photutils.background import Background2D, MeanBackground

from skyloom.algorithms.background import (
    bin_edges,
    bin_image,
    measure_background,
    render_background,
)
from tests.algorithms.background.scenes import image_of

SIDE = 128
SHAPE = (1024, 1280)


@pytest.fixture(scope="module")
def noise() -> np.ndarray:
    """Return clean noise in bins of 128 pixels without remainder."""
    return np.random.default_rng(1).normal(500.0, 10.0, SHAPE).astype(np.float32)


@pytest.fixture(scope="module")
def measured(noise):
    """Return our background of it."""
    return measure_background(image_of(noise), bin_size=(SIDE, SIDE))


def standard_errors(background) -> np.ndarray:
    return np.sqrt(background["variance"].values)


def photutils_background(image) -> Background2D:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Background2D(
            image,
            SIDE,
            filter_size=1,
            sigma_clip=SigmaClip(3.0, maxiters=3),
            bkg_estimator=MeanBackground(),
        )


def test_photutils_finds_the_same_bins_and_the_same_image(noise, measured):
    theirs = photutils_background(noise)
    difference = (theirs.background_mesh - measured["level"].values) / standard_errors(measured)
    assert np.sqrt(np.mean(difference**2)) <= 0.06
    inner = (slice(SIDE, -SIDE), slice(SIDE, -SIDE))
    image = (theirs.background - render_background(measured).values)[inner]
    assert np.sqrt(np.mean(image**2)) / standard_errors(measured).mean() <= 0.5


def test_sep_finds_the_same_bins_within_its_own_noise(noise, measured):
    theirs = sep.Background(noise, bw=SIDE, bh=SIDE, fw=1, fh=1)
    centers = np.ix_(
        SIDE * np.arange(SHAPE[0] // SIDE) + SIDE // 2,
        SIDE * np.arange(SHAPE[1] // SIDE) + SIDE // 2,
    )
    ours = render_background(measured).values[centers]
    difference = (theirs.back()[centers] - ours) / standard_errors(measured)
    assert np.sqrt(np.mean(difference**2)) <= 2.5
    assert abs(np.mean(difference)) <= 0.4


def test_astropy_clips_to_the_same_mean(noise):
    # its first pass uses the standard deviation, ours the interquartile range
    found = bin_image(noise, None, 0, bin_edges(SHAPE[0], 8), bin_edges(SHAPE[1], 10))
    difference = np.empty(found.level.shape)
    for i, j in np.ndindex(*difference.shape):
        part = noise[SIDE * i : SIDE * i + SIDE, SIDE * j : SIDE * j + SIDE].astype(float)
        kept = sigma_clip(part, sigma=3.0, maxiters=3, cenfunc="median", stdfunc="std")
        difference[i, j] = (kept.mean() - found.level[i, j]) / np.sqrt(found.variance[i, j])
    assert np.sqrt(np.mean(difference**2)) <= 0.05


def test_gradients_are_kept_at_the_edge_where_reflection_flattens_them():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    rng = np.random.default_rng(2)
    truth = 500.0 + 0.02 * x + 5.0 * np.sin(y / 250.0)
    image = (truth + rng.normal(0.0, 10.0, SHAPE)).astype(np.float32)
    background = measure_background(image_of(image), bin_size=(SIDE, SIDE))
    ours = render_background(background).values - truth
    theirs = photutils_background(image).background - truth
    assert np.std(ours) < 0.6 * np.std(theirs)
