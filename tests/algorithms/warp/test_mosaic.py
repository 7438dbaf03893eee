"""A dithered, turned mosaic of detectors, warped and merged onto one patch of a sky map."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.conditions import observing_conditions
from skyloom.algorithms.focal_plane import detector_transform
from skyloom.algorithms.skymap import SkyMapParameters, discrete_skymap
from skyloom.algorithms.tangent_plane import from_tangent_plane, tangent_plane
from skyloom.algorithms.warp import (
    WarpParameters,
    calibrate_exposure,
    merge_warps,
    warp_exposure,
)
from tests.algorithms.warp.scenes import exposure_of, stars

SKY = (359.995, -20.25)
SHAPE = (220, 260)
DETECTORS = {
    "S1": detector_transform(SHAPE, pixel_size=0.015, offset=(-2.05, 0.0)),
    "S2": detector_transform(SHAPE, pixel_size=0.015, offset=(2.05, 0.1), rotation=180.0),
}
FLUX = 5e4


@pytest.fixture(scope="module")
def field():
    """Return a patch, a catalogue of stars, and merged warps of three turned exposures."""
    sizes = SkyMapParameters(patch_shape=(700, 700), patch_border=20, tract_overlap=0.0)
    sky_map = discrete_skymap([(*SKY, 0.018)], parameters=sizes)
    tract = sky_map[0]
    patch = min(tract, key=lambda one: one.index)
    rng = np.random.default_rng(4)
    east, north = (8.0 * axis.ravel() / 3600 for axis in np.mgrid[-6:7, -3:4])
    east, north = (axis + rng.uniform(-0.3, 0.3, axis.size) / 3600 for axis in (east, north))
    catalogue = from_tangent_plane(east, north, *SKY)
    merged = []
    for visit, (turn, dx, dy) in enumerate(
        ((0.0, 0.0, 0.0), (25.0, 4.3, -2.9), (130.0, -3.1, 5.2))
    ):
        ra, dec = from_tangent_plane(dx / 3600, dy / 3600, *SKY)
        record = observing_conditions(60676.2, float(ra), float(dec), longitude=-70.7, latitude=-30)
        warps = []
        for name, transform in DETECTORS.items():
            plane = tangent_plane(
                transform, right_ascension=float(ra), declination=float(dec), rotator_angle=turn,
                plate_scale=0.2 / 0.015,
            )  # fmt: skip
            image = stars(SHAPE, *plane.to_pixels(*catalogue), 4.0, FLUX)
            bad = np.where(rng.random(SHAPE) < 0.002, v.MASK_PLANES["BAD"], 0)
            # what lies in bad pixels must not be seen
            exposure = exposure_of(np.where(bad, 1e6, image + 3.0), 4.0, bad, detector=name)
            exposure["image"].attrs["units"] = "electron"
            exposure = exposure.assign_coords(exposure=visit)
            exposure.attrs["conditions"] = record.to_attributes()
            exposure = calibrate_exposure(exposure, scale=2.0)
            wanted = WarpParameters(crop=bool(visit % 2))
            warps.append(warp_exposure(exposure, plane, tract, patch, parameters=wanted))
        merged.append(merge_warps(warps, box=patch.outer))
    return tract, patch, catalogue, merged


def test_stars_lie_where_the_catalogue_says_in_every_visit(field):
    tract, patch, catalogue, merged = field
    x, y = tract.plane.to_pixels(*catalogue)
    seen = 0
    for warp in merged:
        area = abs(np.linalg.det(warp.attrs["matrix"]))
        image = warp["image"].values.astype(float) - 2 * 3.0 * area
        for i, j in zip(x - patch.outer[2], y - patch.outer[0], strict=True):
            rows = slice(round(j) - 9, round(j) + 10)
            columns = slice(round(i) - 9, round(i) + 10)
            part = image[rows, columns]
            if part.shape != (19, 19) or not np.isfinite(part).all():
                continue
            if (warp["mask"].values[rows, columns] != 0).any():
                continue
            seen += 1
            grid_y, grid_x = np.mgrid[rows, columns]
            assert part.sum() == pytest.approx(2 * FLUX, rel=2e-3)
            assert (part * grid_x).sum() / part.sum() == pytest.approx(i, abs=0.025)
            assert (part * grid_y).sum() / part.sum() == pytest.approx(j, abs=0.025)
    assert seen > 60


def test_bad_pixels_leave_no_trace_beyond_their_flag(field):
    _, _, _, merged = field
    for warp in merged:
        clean = (warp["mask"].values == 0) & np.isfinite(warp["image"].values)
        assert clean.sum() > 50_000
        assert warp["image"].values[clean].max() < 2 * FLUX / 15
        assert warp["image"].values[clean].min() > -0.05 * 2 * FLUX / 15


def test_visits_keep_their_conditions_and_their_gap(field):
    _, patch, _, merged = field
    for visit, warp in enumerate(merged):
        assert warp["visit"].item() == visit
        assert warp.attrs["inputs"] == ["S1", "S2"]
        assert warp.attrs["box"] == list(patch.outer)
        assert warp.attrs["conditions"]["latitude"] == -30
        assert (warp["tract"].item(), warp["patch"].item()) == (0, patch.index)
        assert 0.02 < float(warp["image"].isnull().mean()) < 0.9
    assert len({xr.DataArray(w["mask"]).values.tobytes() for w in merged}) == 3
