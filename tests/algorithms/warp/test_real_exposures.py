"""Real exposures of the same sky on three detectors."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.algorithms.warp import warp_exposure
from tests.real_data.decam import CUTOUTS, PUBLISHED, conditions_of, cutouts, straight_line

with_shared_data = pytest.mark.skipif(not CUTOUTS.exists(), reason="shared data not here")


@with_shared_data
@pytest.mark.parametrize("band", ["g", "r", "z"])
def test_scales_and_offsets_between_exposures_are_those_published(band):
    exposures = cutouts(band)
    reference, grid, _ = exposures.pop("N11")
    shape = reference["image"].shape
    for detector, (exposure, wcs, _) in exposures.items():
        warp = warp_exposure(exposure, wcs, grid, (0, shape[0], 0, shape[1]))
        image = warp["image"].values / abs(np.linalg.det(warp.attrs["matrix"]))
        good = np.isfinite(image) & (reference["mask"].values == 0)
        assert good.mean() > 0.7
        line, sigma = straight_line(reference["image"].values[good], image[good])
        assert (np.abs(line - PUBLISHED[band, detector]) < 3 * sigma).all()


@with_shared_data
@pytest.mark.parametrize("band", ["g", "r", "z"])
def test_altitudes_in_headers_are_those_of_position_time_and_observatory(band):
    for _, _, header in cutouts(band).values():
        record = conditions_of(header)
        assert record.altitude == pytest.approx(90 - float(header["ZD"]), abs=0.05)
        assert record.airmass == pytest.approx(float(header["AIRMASS"]), abs=0.01)
