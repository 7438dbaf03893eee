"""A simulated night goes through FITS files into a store without losing what it says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS

from skyloom.algorithms.amplifiers import amplifier_rows, trimmed_shape
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.simulate import (
    PlanParameters,
    exposure_plane,
    night_plan,
    night_scene,
    night_truth,
    schedule_plan,
    simulate_night_exposure,
)
from skyloom.storage.camera import Camera, load_camera
from skyloom.storage.camera_check import check_camera
from skyloom.storage.ingest import ingest_fits
from skyloom.storage.raw_fits import write_raw_fits
from skyloom.storage.store import create_store


@pytest.fixture(scope="module")
def sky_camera() -> Camera:
    return load_camera("simulated-sky")


def transforms(camera: Camera) -> dict[str, np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    assert camera.pixel_size is not None
    return {
        each.name: detector_transform(
            trimmed_shape(amplifier_rows(camera.amplifiers(each.name))),
            pixel_size=camera.pixel_size / 1000,
            offset=each.offset_mm,
            rotation=each.rotation,
        )
        for each in camera.detectors
    }


def test_the_camera_of_the_sky_has_six_detectors_that_do_not_overlap(sky_camera: Camera) -> None:
    corners = {}
    for name, transform in transforms(sky_camera).items():
        x, y = to_focal_plane(transform, [-0.5, 511.5], [-0.5, 511.5])
        corners[name] = (min(x), max(x), min(y), max(y))
        shape = trimmed_shape(amplifier_rows(sky_camera.amplifiers(name)))
        assert shape == (512, 512)
    assert len(corners) == 6
    for name, (left, right, low, high) in corners.items():
        for other, (from_x, to_x, from_y, to_y) in corners.items():
            if name != other:
                assert right < from_x or to_x < left or high < from_y or to_y < low


def test_a_night_is_ingested_with_pointing_dark_time_and_projection(
    sky_camera: Camera, tmp_path: Path
) -> None:
    tables = {name: sky_camera.amplifiers(name) for name in sky_camera.detector_names()}
    truth = night_truth(tables, transforms(sky_camera), ["r"], seed=1)
    plan = night_plan(
        ["r"],
        biases=1,
        darks=0,
        flats=1,
        science=1,
        seed=1,
        parameters=PlanParameters(rotation=30.0),
    )
    plan = schedule_plan(plan, hour_angles=[-25.0])
    field = night_scene(plan, truth, seed=1)
    names = ("S02", "S12")
    frames: dict[tuple[int, str], xr.Dataset] = {}
    for exposure in (1, 2, 3):
        raws = {
            name: simulate_night_exposure(
                plan,
                exposure,
                tables[name],
                truth[name],
                field,
                shape=sky_camera.detector(name).shape,
            )
            for name in names
        }
        frames |= {(exposure, name): raw for name, raw in raws.items()}
        write_raw_fits(tmp_path / f"{exposure}.fits", sky_camera, raws)
    missing = check_camera(sky_camera, tmp_path)
    assert all("HDU" in problem for problem in missing)
    store = create_store(tmp_path / "store", sky_camera)
    outcomes = ingest_fits(store, sorted(tmp_path.glob("*.fits")))
    assert [outcome.status for outcome in outcomes] == ["ingested"] * 3
    for (exposure, name), frame in frames.items():
        found = store.read_block("raw", {"exposure": exposure, "detector": name})
        np.testing.assert_array_equal(found.image, frame.image)
        for key in frame.coords:
            expected = frame[key].values[()]
            if key == "wcs":
                given, kept = json.loads(str(expected)), json.loads(str(found[key].values))
                assert kept == pytest.approx(given)
            elif isinstance(expected, str):
                assert str(found[key].values) == expected
            else:
                assert float(found[key]) == pytest.approx(float(expected), nan_ok=True, abs=1e-8)
            if "units" in frame[key].attrs and key in ("right_ascension", "dark_time", "airmass"):
                assert found[key].attrs["units"] == frame[key].attrs["units"]
    for name in names:
        with fits.open(tmp_path / "3.fits") as hdus:
            assert "CRPIX1" not in hdus[0].header
            theirs = WCS(hdus[name].header)
        x, y = np.array([0.0, 511.0, 200.0]), np.array([0.0, 100.0, 511.0])
        sky = exposure_plane(plan, 3, truth[name]).to_sky(x, y)
        np.testing.assert_allclose(theirs.wcs_pix2world(x, y, 0), sky, rtol=0, atol=1e-10)
    table = store.exposures()
    assert float(table.airmass.sel(exposure=3)) == pytest.approx(float(plan.airmass[2]))
    assert np.isnan(table.right_ascension.sel(exposure=1))
    assert table.condition_flags.values[2] == 0
    for name in ("altitude", "hour_angle", "parallactic_angle"):
        assert float(table[name][2]) == pytest.approx(float(plan[name][2]), abs=1e-6)
