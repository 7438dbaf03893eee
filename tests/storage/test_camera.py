"""Cameras: short to write, wrong ones told everything at once, with lines."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import given

from skyloom.algorithms.errors import ConfigurationError
from skyloom.storage import check_camera, load_camera
from skyloom.storage.camera import Camera, camera_names, parse_camera
from skyloom.storage.camera_geometry import trimmed_boxes
from skyloom.storage.camera_model import Amplifier, Box, Detector
from skyloom.storage.exports import write_raw_fits

MakeRaws = Callable[..., dict[str, xr.Dataset]]

GOOD = """\
name: mine
layout: {file: exposure, hdu: detector}
header:
  exposure: {key: EXPID, required: true}
  observation_type: {key: OBSTYPE, values: {zero: bias}}
  exposure_time: EXPTIME
detectors:
  - name: ccd
    hdu: 0
    shape: [4, 10]
    amplifiers:
      - name: A
        data: {y: [0, 4], x: [0, 4]}
        overscan: {y: [0, 4], x: [4, 5]}
      - name: B
        data: {y: [0, 4], x: [5, 9]}
        overscan: {y: [0, 4], x: [9, 10]}
"""


def problems(text: str) -> list[str]:
    """Return the lines of the one error that reading a camera raises."""
    with pytest.raises(ConfigurationError) as caught:
        parse_camera(text, "mine.yaml")
    first, *rest = str(caught.value).splitlines()
    assert first.startswith("mine.yaml")
    return [line.strip() for line in rest] or [first]


# What comes with the package -------------------------------------------------------------------
@pytest.mark.parametrize("name", camera_names())
def test_every_camera_of_the_package_is_right(name: str) -> None:
    camera = load_camera(name)
    assert camera.name == name
    for detector in camera.detectors:
        amplifiers = camera.amplifiers(detector.name)
        assert amplifiers.attrs["detector"] == detector.name
        sizes = {
            (axis, part): amplifiers[f"{part}{axis}_stop"] - amplifiers[f"{part}{axis}_start"]
            for axis in "yx"
            for part in ("data_", "")
        }
        for axis in "yx":
            np.testing.assert_array_equal(sizes[axis, "data_"], sizes[axis, ""])


def test_amplifiers_are_a_dataset_with_the_types_and_units_that_algorithms_expect() -> None:
    amplifiers = load_camera("simulated-mosaic").amplifiers("S11")
    assert amplifiers["amp"].values.tolist() == ["A", "B", "C", "D"]
    for name, variable in amplifiers.data_vars.items():
        kind = "b" if str(name).startswith("flip") else "f" if "_" not in str(name) else None
        assert variable.dims == ("amp",)
        if "start" in str(name) or "stop" in str(name):
            assert variable.dtype == np.int32
        elif kind:
            assert variable.dtype.kind == kind
    assert amplifiers["gain"].attrs["units"] == "electron/adu"
    assert amplifiers["read_noise"].attrs["units"] == "electron"
    assert amplifiers["saturation"].attrs["units"] == "adu"
    assert (amplifiers["parallel_overscan_y_stop"] == 0).all()
    assert amplifiers["flip_y"].values.tolist() == [False, False, True, True]


def test_decam_has_the_sections_of_its_headers() -> None:
    camera = load_camera("decam")
    assert len(camera.detectors) == 62
    assert [camera.detector(name).id for name in ("S29", "S1", "N1", "N31")] == [1, 25, 32, 62]
    for name, amp, section in [
        ("S1", "A", (50, 4146, 1080, 2104)),
        ("S1", "B", (50, 4146, 56, 1080)),
        ("N31", "A", (0, 4096, 56, 1080)),
        ("N31", "B", (0, 4096, 1080, 2104)),
    ]:
        boxes = camera.amplifiers(name).sel(amp=amp)
        keys = ("data_y_start", "data_y_stop", "data_x_start", "data_x_stop")
        assert tuple(int(boxes[key]) for key in keys) == section
        assert int(boxes["overscan_x_stop"] - boxes["overscan_x_start"]) == 50
        assert int(boxes["parallel_overscan_y_stop"] - boxes["parallel_overscan_y_start"]) == 50
    # Both orders of amplifiers tile the 4096 x 2048 trimmed detector.
    for name in ("S1", "N1"):
        assert {str(box) for box in trimmed_boxes(camera.detector(name)).values()} == {
            "y [0, 4096) x [0, 1024)",
            "y [0, 4096) x [1024, 2048)",
        }


def test_decam_stands_symmetrically_in_the_focal_plane() -> None:
    offsets = np.array([detector.offset_mm for detector in load_camera("decam").detectors])
    np.testing.assert_allclose(offsets.sum(axis=0), 0, atol=1e-9)
    assert len({tuple(offset) for offset in offsets}) == 62
    assert np.hypot(*offsets.T).max() < 225  # the field of view


# Reading ---------------------------------------------------------------------------------------
def test_a_camera_is_read_from_a_file_and_keeps_its_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD)
    camera = load_camera(path)
    assert camera.text == GOOD
    assert camera.detector("ccd").id == 0
    assert camera.amplifier_names("ccd") == ["A", "B"]


def test_an_unknown_camera_is_named_with_those_there_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no camera 'decma'; did you mean decam\?"):
        load_camera("decma")


def test_an_unknown_detector_is_named_with_those_there_are() -> None:
    with pytest.raises(KeyError, match=r"no detector 'S0'; did you mean S\d+\?"):
        load_camera("decam").amplifiers("S0")


def test_templates_and_overrides_keep_identical_detectors_short(camera: Camera) -> None:
    text = camera.text.replace(
        "id: 12, template: ccd}", "id: 12, template: ccd, overrides: {B: {gain: 2.5}}}"
    )
    changed = parse_camera(text, "tiny.yaml")
    assert changed.amplifiers("left")["gain"].values.tolist() == [1.0, 1.0]
    assert changed.amplifiers("right")["gain"].values.tolist() == [1.0, 2.5]
    assert changed.amplifiers("right")["data_x_start"].values.tolist() == [0, 10]


def test_trimmed_boxes_may_be_given() -> None:
    text = GOOD.replace("name: A\n", "name: A\n        trimmed: {y: [0, 4], x: [4, 8]}\n")
    text = text.replace("name: B\n", "name: B\n        trimmed: {y: [0, 4], x: [0, 4]}\n")
    amplifiers = parse_camera(text, "mine.yaml").amplifiers("ccd")
    assert amplifiers["x_start"].values.tolist() == [4, 0]


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 3))
def test_trimmed_boxes_tile_the_detector_without_gap(widths: list[int], overscan: int) -> None:
    amps, at = [], 0
    for number, width in enumerate(widths):
        box = Box(y=(2, 5), x=(at, at + width))
        amps.append(Amplifier(name=str(number), data=box))
        at += width + overscan
    detector = Detector(name="d", hdu=0, shape=(9, at), amplifiers=tuple(amps))
    boxes = list(trimmed_boxes(detector).values())
    edges = np.cumsum([0, *widths])
    assert [box.x for box in boxes] == list(pairwise(edges))
    assert {box.y for box in boxes} == {(0, 3)}


# Mistakes --------------------------------------------------------------------------------------
def test_every_mistake_is_told_at_once_with_its_line() -> None:
    text = """\
name: mine
pixeltype: auto
header:
  exposure: {key: EXPID, requiredd: true}
  observation_type: {key: OBSTYPE, values: {zero: biass}}
  exposure_time: EXPTIME
detectors:
  - name: ccd
    hdu: 0
    shape: [4, 10]
    amplifiers:
      - name: A
        data: {y: [0, 4], x: [0, 6]}
      - name: A
        data: {y: [0, 4], x: [5, 12]}
        gain: -1
  - name: ccd
    hdu: 0
    shape: [4, 10]
    amplifiers:
      - {name: A, data: {y: [0, 4], x: [0, 6]}, overscan: {y: [0, 4], x: [5, 7]}}
      - {name: B, data: {y: [0, 4], x: [4, 12]}}
"""
    found = problems(text)
    assert found == [
        "line 2: pixeltype: unknown key; did you mean pixel_type?",
        "line 4: header.exposure.requiredd: unknown key; did you mean required?",
        "line 16: detectors[0].amplifiers[1].gain: Input should be greater than 0, not -1",
        "line 21: detectors[1].amplifiers[0].overscan: overscan and data of amplifier A overlap",
        "line 22: detectors[1].amplifiers[1].data: amplifiers A and B overlap: "
        "y [0, 4) x [0, 6) and y [0, 4) x [4, 12)",
        "line 22: detectors[1].amplifiers[1].data: y [0, 4) x [4, 12) of amplifier B is outside "
        "the raw array of 4 rows, 10 columns",
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: B", "name: A", "line 15: detectors[0].amplifiers[1].name: 'A' is also the name"),
        ("x: [5, 9]", "x: [3, 9]", "line 16: detectors[0].amplifiers[1].data: amplifiers A and B"),
        ("x: [9, 10]", "x: [9, 11]", "line 17: detectors[0].amplifiers[1].overscan: y [0, 4) x"),
        ("x: [5, 9]", "x: [9, 5]", "line 16: detectors[0].amplifiers[1].data: x ends at 5"),
        ("x: [5, 9]", "x: [5, 5]", "line 16: detectors[0].amplifiers[1].data: holds no pixel"),
        ("x: [5, 9]", "x: [-1, 9]", "line 16: detectors[0].amplifiers[1].data.x[0]: Input should"),
        (
            "zero: bias",
            "zero: biass",
            "line 5: header.observation_type.values.zero: 'biass' is not",
        ),
        ("shape: [4, 10]", "shape: 4", "line 10: detectors[0].shape: Input should be a valid"),
        ("    hdu: 0\n", "", "line 8: detectors[0].hdu: missing: which HDU holds the detector"),
        ("hdu: detector", "hdu: amplifier", "line 12: detectors[0].amplifiers[0].hdu: missing"),
        ("file: exposure", "file: detector", "line 2: layout.detector: one file per detector"),
        ("  exposure_time: EXPTIME\n", "", "line 3: header.exposure_time: missing"),
        ("name: mine\n", "name: mine\nname: yours\n", "line 2: name: this key occurs twice"),
        ("  - name: ccd", "  - template: none\n    name: ccd", "line 8: detectors[0].template: no"),
        (
            "overscan: {y: [0, 4], x: [9",
            "ovrscan: {y: [0, 4], x: [9",
            "line 17: detectors[0].amplif",
        ),
    ],
)
def test_a_mistake_is_told_with_its_line(old: str, new: str, expected: str) -> None:
    assert old in GOOD
    assert any(line.startswith(expected) for line in problems(GOOD.replace(old, new, 1)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: [1", "mine.yaml, line 1: not YAML"),
        ("", "line 1: a camera is a mapping of keys to values"),
        ("- 1", "line 1: a camera is a mapping"),
        ("name: a\nheader: 3\ndetectors: 4\n", "line 3: detectors: must be a list of detectors"),
        ("name: a\nheader: 3\ndetectors: [5]\n", "line 3: detectors[0]: a detector is a mapping"),
        ("!!python/object/apply:os.system [ls]", "mine.yaml, line 1: not YAML"),
    ],
)
def test_what_is_no_camera_at_all_is_told(text: str, expected: str) -> None:
    assert any(line.startswith(expected) for line in problems(text))


def test_a_mistake_in_a_template_is_told_once_and_there(camera: Camera) -> None:
    text = camera.text.replace("shape: [6, 20]", "shape: [6, 15]")
    line = next(i for i, each in enumerate(text.splitlines(), 1) if "origin: [0, 10]" in each)
    found = problems(text)
    assert all(
        each.startswith(f"line {line}: templates.detectors.ccd.amplifiers[1]") for each in found
    )
    assert len(found) == 3  # data, overscan and segment, once for both detectors


def test_an_override_of_no_amplifier_is_a_mistake(camera: Camera) -> None:
    text = camera.text.replace(
        "id: 12, template: ccd}", "id: 12, template: ccd, overrides: {b: {}}}"
    )
    assert any("overrides.b: no such amplifier" in line for line in problems(text))


def test_any_line_left_out_is_a_mistake_or_another_camera() -> None:
    lines = GOOD.splitlines(keepends=True)
    for number in range(len(lines)):
        text = "".join(lines[:number] + lines[number + 1 :])
        try:
            assert parse_camera(text, "mine.yaml") != parse_camera(GOOD, "mine.yaml")
        except ConfigurationError as error:
            assert "mine.yaml" in str(error)  # noqa: PT017  # either way is right


# Against files ---------------------------------------------------------------------------------
@pytest.mark.parametrize("hdu", ["detector", "amplifier"])
def test_a_camera_that_fits_its_files_has_no_problem(
    tmp_path: Path, make_camera: Callable[..., Camera], make_raws: MakeRaws, hdu: str
) -> None:
    camera = make_camera(hdu=hdu)
    path = write_raw_fits(tmp_path / "1.fits", camera, make_raws(1))
    assert check_camera(camera, path) == []


@pytest.fixture
def odd_file(tmp_path: Path, camera: Camera, make_raws: MakeRaws) -> Path:
    path = write_raw_fits(tmp_path / "1.fits", camera, make_raws(1))
    with fits.open(path, mode="update", memmap=False) as hdus:
        hdus[0].header["OBSTYPE"] = "domeflat"
        hdus[0].header.rename_keyword("EXPTIME", "EXPOSURE")
        hdus["left"].header["DATASECA"] = "[2:9,1:6]"
        hdus["left"].header["BIASSECB"] = "[19:21,1:6]"
        hdus["left"].header["DETSECA"] = "[1:7,1:6]"
        hdus["right"].header["EXTNAME"] = "RIHGT"
    return path


def test_what_does_not_fit_is_told_with_what_was_probably_meant(
    camera: Camera, odd_file: Path
) -> None:
    found = check_camera(camera, odd_file)
    assert all(line.startswith(f"{odd_file}: ") for line in found)
    for part in (
        "HDU right (detector right) is missing or not an image; the images are 1 LEFT, 2 RIHGT; "
        "did you mean RIHGT?",
        "header key EXPTIME (exposure_time) is missing",
        "'domeflat', which the camera does not translate: taken as 'other'",
        "header DATASECA = [2:9,1:6] is y [0, 6) x [1, 9), but the data of amplifier A of "
        "detector left is y [0, 6) x [0, 8)",
        "header BIASSECB = [19:21,1:6] is y [0, 6) x [18, 21)",
        "header DETSECA = [1:7,1:6] spans 6 x 7 pixels",
    ):
        assert any(part in line for line in found), part
    assert len(found) == 6


def test_a_wrong_shape_is_told(camera: Camera, make_raws: MakeRaws, tmp_path: Path) -> None:
    path = write_raw_fits(tmp_path / "1.fits", camera, make_raws(1))
    other = parse_camera(camera.text.replace("shape: [6, 20]", "shape: [6, 21]"), "tiny.yaml")
    found = check_camera(other, path)
    assert len(found) == 2
    assert "has 6 x 20 pixels, the camera says 6 x 21 (rows x columns)" in found[0]


def test_files_that_cannot_be_read_are_told(camera: Camera, tmp_path: Path) -> None:
    path = tmp_path / "1.fits"
    path.write_text("no")
    assert check_camera(camera, path) == [f"{path}: not a FITS file; check what it is"]


def test_a_file_of_one_detector_must_name_it(
    make_camera: Callable[..., Camera], make_raws: MakeRaws, tmp_path: Path
) -> None:
    camera = make_camera(file="detector")
    path = write_raw_fits(tmp_path / "1.fits", camera, make_raws(1, ["left"]), {"CCDNAME": None})
    (line,) = check_camera(camera, path)
    assert line.startswith(f"{path}: header key CCDNAME, which names the detector, is missing")


def test_sections_that_run_backwards_cover_the_same_pixels(
    camera: Camera, make_raws: MakeRaws, tmp_path: Path
) -> None:
    path = write_raw_fits(tmp_path / "1.fits", camera, make_raws(1), {"DETSEC": "[1:16,1:6]"})
    with fits.open(path, mode="update", memmap=False) as hdus:
        hdus["left"].header["DATASECA"] = "[8:1,6:1]"
        hdus["left"].header["DETSECA"] = "[8:1,1:6]"
        hdus["left"].header["BIASSECA"] = "nonsense"
    assert check_camera(camera, path) == []
