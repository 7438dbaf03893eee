"""Sky frames as FITS files: as they were when they come back, and plain to other readers."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SchemaError, StoreError
from skyloom.storage.sky_frame_fits import read_sky_frame, write_sky_frame

BINS = ("bin_y", "bin_x")


def frame_with_gaps():
    """Return a frame as it is made of exposures, with bins never observed and observed once."""
    rng = np.random.default_rng(1)
    level = rng.normal(0.0, 0.01, (5, 8)).astype(np.float32)
    variance = rng.uniform(1e-7, 1e-6, level.shape).astype(np.float32)
    flags = np.zeros(level.shape, np.uint8)
    count = np.full(level.shape, 7, np.int16)
    level[:, 5] = np.nan
    variance[1, 2], count[1, 2] = np.nan, 0
    flags[1, 2] = v.BinFlag.EMPTY | v.BinFlag.FILLED
    flags[0, 0], count[0, 0] = v.BinFlag.LOW_COUNT, 1
    return xr.Dataset(
        {
            "level": (BINS, level, {"units": ""}),
            "variance": (BINS, variance, {"units": ""}),
            "exposure_count": (BINS, count, {"units": ""}),
            "flags": (BINS, flags, v.flag_attributes(v.BinFlag)),
            "extra_scatter": ((), 1.0123456789012345, {"units": ""}),
        },
        coords={
            "bin_y": 31.5 + 32.0 * np.arange(5),
            "bin_x": 11.5 + 32.1 * np.arange(8),
            "detector": "S4",
            "number": np.int16(12),
            "mjd_start": 60512.123456789,
        },
        attrs={"box": [16, 176, -4, 253], "grid_rule": "nearest", "clip": 3.0},
    )


def test_a_frame_comes_back_as_it_was(tmp_path):
    frame = frame_with_gaps()
    copy = frame.copy(deep=True)
    path = write_sky_frame(tmp_path / "made" / "sky.fits", frame, header={"FILTER": "r"})
    xr.testing.assert_identical(frame, copy)
    back = read_sky_frame(path)
    xr.testing.assert_identical(back, frame)
    for name in frame.variables:
        assert back[name].dtype == frame[name].dtype
        assert back[name].values.tobytes() == frame[name].values.tobytes()
    assert back.attrs == frame.attrs
    assert [item.name for item in tmp_path.joinpath("made").iterdir()] == ["sky.fits"]


def test_a_background_comes_back_too(tmp_path):
    frame = frame_with_gaps()
    background = frame.drop_vars(["exposure_count", "extra_scatter", "mjd_start"]).assign(
        level=frame["level"].astype(np.float64).assign_attrs(units="electron"),
        pixel_variance=(BINS, np.full((5, 8), 1e4, np.float32), {"units": "electron2"}),
        count=(BINS, np.arange(40, dtype=np.int32).reshape(5, 8)),
    )
    path = write_sky_frame(tmp_path / "one.fits", background, interpolation="akima")
    xr.testing.assert_identical(read_sky_frame(path), background)


def test_dimensions_in_another_order_stay_so(tmp_path):
    frame = frame_with_gaps().transpose("bin_x", "bin_y")
    path = write_sky_frame(tmp_path / "turned.fits", frame)
    xr.testing.assert_identical(read_sky_frame(path), frame)
    with fits.open(path) as hdus:
        assert hdus["IMAGE"].data.shape == (5, 8)


def test_other_readers_find_image_mask_variance_box_and_spline(tmp_path):
    frame = frame_with_gaps()
    path = write_sky_frame(
        tmp_path / "sky.fits",
        frame,
        header={"FILTER": "r", "INSTRUMENT_NAME": "camera", "EXPOSURES": [1, 2, 3]},
    )
    with fits.open(path) as hdus:
        hdus.verify("exception")
        header = hdus[0].header
        box = [header[f"BOX {name}"] for name in ("MINX", "MINY", "MAXX", "MAXY")]
        assert box == [-4, 16, 252, 175]
        assert header["ALGORITHM"] == "NATURAL_SPLINE"
        assert (header["FILTER"], header["OBSTYPE"]) == ("r", "SKY")
        assert header["EXPOSURES"] == "[1, 2, 3]"
        np.testing.assert_array_equal(hdus["IMAGE"].data, frame["level"])
        np.testing.assert_array_equal(hdus["VARIANCE"].data, frame["variance"])
        mask, cards = hdus["MASK"].data, hdus["MASK"].header
        assert mask[1, 2] & (1 << cards["MP_NO_DATA"])
        assert mask[1, 2] & (1 << cards["MP_INTRP"])
        assert mask[0, 0] & (1 << cards["MP_BAD"])
        assert mask[3, 3] == 0
        assert all(hdu.header["INHERIT"] for hdu in hdus[1:4])
        np.testing.assert_array_equal(hdus["EXPOSURE_COUNT"].data, frame["exposure_count"])


def test_frames_of_other_software_are_read(tmp_path):
    rng = np.random.default_rng(3)
    level = rng.normal(0.0, 0.01, (4, 6)).astype(np.float32)
    level[0, 1] = np.nan
    mask = np.zeros(level.shape, np.int32)
    mask[2, 2] = 1 << 5
    primary = fits.PrimaryHDU()
    for name, value in {"MINX": 0, "MINY": 0, "MAXX": 191, "MAXY": 127}.items():
        primary.header[f"HIERARCH BOX {name}"] = value
    primary.header["HIERARCH ALGORITHM"] = "AKIMA_SPLINE"
    planes = fits.ImageHDU(mask, name="MASK")
    planes.header["MP_BAD"], planes.header["HIERARCH MP_NO_DATA"] = 0, 5
    images = [fits.ImageHDU(level, name="IMAGE"), planes, fits.ImageHDU(level**2, name="VARIANCE")]
    fits.HDUList([primary, *images]).writeto(tmp_path / "other.fits")
    frame = read_sky_frame(tmp_path / "other.fits")
    np.testing.assert_array_equal(frame["level"], level)
    np.testing.assert_array_equal(frame["variance"], level**2)
    assert frame.attrs == {"box": [0, 128, 0, 192], "interpolation": "akima"}
    assert frame["flags"].values[2, 2] == v.BinFlag.EMPTY
    assert frame["flags"].values[0, 1] == v.BinFlag.EMPTY


def test_misuse_is_named(tmp_path):
    frame = frame_with_gaps()
    path = write_sky_frame(tmp_path / "sky.fits", frame)
    with pytest.raises(StoreError, match="exists"):
        write_sky_frame(path, frame)
    write_sky_frame(path, frame, overwrite=True)
    with pytest.raises(ValueError, match="interpolation"):
        write_sky_frame(tmp_path / "a.fits", frame, interpolation="quintic")
    with pytest.raises(SchemaError, match="one detector"):
        write_sky_frame(tmp_path / "a.fits", frame.expand_dims(exposure=2))
    with pytest.raises(SchemaError, match="box"):
        write_sky_frame(tmp_path / "a.fits", frame.drop_attrs())
    assert not (tmp_path / "a.fits").exists()
    with pytest.raises(StoreError, match="cannot read"):
        read_sky_frame(tmp_path / "missing.fits")
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "plain.fits")
    with pytest.raises(StoreError, match=r"BOX MINX.*HDU IMAGE"):
        read_sky_frame(tmp_path / "plain.fits")
    (tmp_path / "broken.fits").write_bytes(b"not a file of this kind" * 200)
    with pytest.raises(StoreError, match="cannot read"):
        read_sky_frame(tmp_path / "broken.fits")
