"""Matched warps of a visit from those of its detectors."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import DroppedInputWarning
from skyloom.algorithms.psf import gaussian_psf, match_detectors, match_psf, psf_at_points
from skyloom.algorithms.tangent_plane import TangentPlane
from skyloom.algorithms.warp import warp_exposure

WIDTHS = {3: 4.0, 7: 5.5, 21: 4.8}
SHIFTS = {3: 0, 7: 160, 21: 320}
BOX = (0, 150, 0, 480)


def plane(x: float) -> TangentPlane:
    return TangentPlane(150.0, 2.0, 240.0 - x, 75.0, 0.2 / 3600 * np.diag([-1.0, 1.0]))


def detector(name: int) -> xr.Dataset:
    """Return the warp of a detector of 150² pixels with one star, 10 pixels from the next one."""
    image = np.zeros((150, 150), np.float32)
    star = gaussian_psf(WIDTHS[name], size=61)
    image[45:106, 45:106] = 1e4 * star
    planes = xr.DataArray(image, dims=("y", "x"), attrs={"units": "nJy"})
    exposure = xr.Dataset(
        {"image": planes, "variance": xr.ones_like(planes)},
        coords={"exposure": 55, "detector": name, "physical_filter": "g"},
        attrs={"conditions": {"airmass": 1.4}},
    )
    exposure["variance"].attrs["units"] = "nJy2"
    return warp_exposure(exposure, plane(SHIFTS[name]), plane(0.0), BOX)


def sets(names) -> list[xr.Dataset]:
    return [
        psf_at_points(gaussian_psf(WIDTHS[name], size=61), SHIFTS[name] + 75.0, 75.0)
        for name in names
    ]


def test_stars_of_all_detectors_become_the_target():
    names = (3, 7, 21)
    found = match_detectors([detector(name) for name in names], sets(names), 7.7, box=BOX)
    target = found["psf"].values
    middle = target.shape[0] // 2
    part = target[middle - 15 : middle + 16, middle - 15 : middle + 16]
    for name in names:
        x = SHIFTS[name] + 75
        star = found["image"].values[60:91, x - 15 : x + 16] / 1e4
        assert np.sqrt(((star - part) ** 2).sum() / (part**2).sum()) < 1e-3
    assert found["match_status"].values.tolist() == [0, 0, 0]
    np.testing.assert_allclose(found["input_fwhm"], [4.0, 5.5, 4.8], rtol=1e-3)
    assert found["detector"].values.tolist() == [3, 7, 21]
    assert float(found["target_fwhm"]) == pytest.approx(7.7, rel=1e-3)
    assert int(found["visit"]) == 55


def test_the_order_of_detectors_does_not_matter():
    names = (3, 7, 21)
    one = match_detectors([detector(name) for name in names], sets(names), 7.7)
    other = match_detectors([detector(name) for name in names[::-1]], sets(names[::-1]), 7.7)
    xr.testing.assert_identical(one, other)


def test_a_detector_too_wide_for_the_target_is_left_out_and_named():
    names = (3, 7)
    with pytest.warns(DroppedInputWarning, match="1 of 2 detectors are not matched; 7: the warp"):
        found = match_detectors([detector(name) for name in names], sets(names), 5.6, box=BOX)
    assert found["match_status"].values.tolist() == [0, int(v.MatchStatus.TARGET_TOO_NARROW)]
    assert np.isfinite(found["image"][75, 75])
    assert np.isnan(found["image"][75, SHIFTS[7] + 75])
    assert int(found["kernel_size"][1]) == 0


def test_without_any_match_there_is_no_product_but_a_reason():
    with pytest.warns(DroppedInputWarning):
        found = match_detectors([detector(3)], sets([3]), 4.0)
    assert "image" not in found
    assert int(found["status"]) == v.WarpStatus.NO_GOOD_PIXEL
    assert int(found["match_status"][0]) == v.MatchStatus.TARGET_TOO_NARROW


def test_a_detector_beside_the_patch_is_passed_over():
    beside = detector(3)[["status"]].assign(status=np.uint8(v.WarpStatus.NO_OVERLAP))
    beside = beside.assign_coords(detector=99)
    found = match_detectors([detector(7), beside], sets([7, 3]), 7.7)
    assert found["match_status"].values.tolist() == [0, int(v.MatchStatus.NOT_MEASURED)]
    alone = match_psf(detector(7), sets([7])[0], 7.7)
    np.testing.assert_array_equal(found["image"], alone["image"])


def test_warps_stay_as_they_are_and_numbers_have_to_agree():
    warp = detector(3)
    before = warp.copy(deep=True)
    match_detectors([warp], sets([3]), 7.7)
    xr.testing.assert_identical(warp, before)
    with pytest.raises(ValueError, match="1 warps need as many"):
        match_detectors([warp], [], 7.7)
