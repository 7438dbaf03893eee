"""Sky frames from the bins of independent packages beside those from ours."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import sep
from astropy.stats import SigmaClip
from photutils.background import Background2D, MeanBackground

from skyloom.algorithms.background import measure_background
from skyloom.algorithms.sky import AverageParameters, average_backgrounds, exposure_residuals
from tests.algorithms.sky.night_scene import by_exposure, image_of, night

SIDE = 32
EQUAL = AverageParameters(weights="equal", error="scatter")


def bins_of_photutils(image, mask):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Background2D(
            image,
            SIDE,
            mask=mask,
            exclude_percentile=100.0,
            filter_size=1,
            sigma_clip=SigmaClip(3.0, maxiters=3),
            bkg_estimator=MeanBackground(),
        ).background_mesh


def bins_of_sep(image, mask):
    whole = sep.Background(image, mask=mask, bw=SIDE, bh=SIDE, fw=1, fh=1).back()
    # its spline goes through the centres of bins, which lie between pixels
    middle = whole.reshape(whole.shape[0] // SIDE, SIDE, -1, SIDE)
    return middle[:, SIDE // 2 - 1 : SIDE // 2 + 1, :, SIDE // 2 - 1 : SIDE // 2 + 1].mean((1, 3))


@pytest.fixture(scope="module")
def frames():
    """Return the frames of each way to bin a night of detectors with patterns on a plane."""
    of = night(12, 2, 3, (256, 256))
    ways = {"ours": None, "photutils": bins_of_photutils, "sep": bins_of_sep}
    residuals = {way: {} for way in ways}
    for exposure in range(len(of.levels)):
        bins = {way: {} for way in ways}
        for name in of.transforms:
            data = image_of(of, exposure, name)
            ours = measure_background(data, bin_size=(SIDE, SIDE), debias=True)
            ours = ours.assign_coords(exposure=exposure)
            pixels, mask = data["image"].values, data["mask"].values != 0
            for way, bin_ in ways.items():
                level = (
                    ours["level"] if bin_ is None else ours["level"].copy(data=bin_(pixels, mask))
                )
                bins[way][name] = ours.assign(level=level.astype(np.float32))
        for way in ways:
            found = exposure_residuals(bins[way], of.transforms)
            residuals[way][exposure] = found.residuals
    return {
        way: {name: average_backgrounds(parts, parameters=EQUAL) for name, parts in by_exposure(r)}
        for way, r in residuals.items()
    }


@pytest.mark.parametrize("peer", ["photutils", "sep"])
def test_frames_from_bins_of_others_agree_within_their_errors(frames, peer):
    ours, theirs = (
        {
            name: np.array([frame[name].values for frame in frames[way].values()])
            for name in ("level", "variance")
        }
        for way in ("ours", peer)
    )
    # the scatter of twelve exposures tells an error well in the mean of bins, not bin by bin
    error = np.sqrt(ours["variance"].mean() + theirs["variance"].mean())
    difference = (theirs["level"] - ours["level"]) / error
    assert np.std(ours["level"]) > 15 * error
    assert np.mean(np.abs(difference) <= 3.0) >= 0.99
    assert np.sqrt(np.mean(difference**2)) <= (0.2 if peer == "photutils" else 1.0)
    assert abs(difference.mean()) <= 3.0 / np.sqrt(difference.size)
