"""Ingest: odd but legal files go in as they are, bad ones are refused by name and remedy."""

from __future__ import annotations

import bz2
import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import hypothesis.strategies as st
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from hypothesis import HealthCheck, given, settings

from skyloom.algorithms.errors import IngestError
from skyloom.storage import create_store, ingest_fits, open_store
from skyloom.storage.camera import Camera
from skyloom.storage.exports import write_raw_fits
from skyloom.storage.fits_files import find_files
from skyloom.storage.fits_images import cast_pixels, pixel_type
from skyloom.storage.ingest import ingest_file, plan_ingest, scan_file
from skyloom.storage.store import Store

MakeRaws = Callable[..., dict[str, xr.Dataset]]
MakeCamera = Callable[..., Camera]


@pytest.fixture
def night(tmp_path: Path) -> Path:
    folder = tmp_path / "night"
    folder.mkdir()
    return folder


@pytest.fixture
def write(night: Path, camera: Camera, make_raws: MakeRaws) -> Callable[..., Path]:
    """Write exposure n as a plain file, changed as the test says."""

    def make(
        exposure: int = 1, name: str = "", change: Callable[[fits.HDUList], Any] | None = None
    ) -> Path:
        path = night / (name or f"{exposure}.fits")
        write_raw_fits(path, camera, make_raws(exposure))
        if change:
            with fits.open(path, mode="update", memmap=False) as hdus:
                change(hdus)
        return path

    return make


def check(store: Store, exposure: int, raws: dict[str, xr.Dataset]) -> None:
    for name, raw in raws.items():
        found = store.read_block("raw", {"exposure": exposure, "detector": name})
        np.testing.assert_array_equal(found["image"], raw["image"])
        assert float(found["exposure_time"]) == float(raw["exposure_time"])
        assert str(found["observation_type"].values) == "flat"


# Good files ------------------------------------------------------------------------------------
@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
@pytest.mark.parametrize("hdu", ["detector", "amplifier"])
def test_every_layout_and_pixel_type_comes_back_exactly(
    tmp_path: Path,
    make_camera: MakeCamera,
    make_raws: MakeRaws,
    dtype: str,
    hdu: str,
    compress: bool,
) -> None:
    camera = make_camera(hdu=hdu)
    raws = make_raws(3, dtype=dtype)
    path = write_raw_fits(tmp_path / "3.fits", camera, raws, compress=compress)
    store = create_store(tmp_path / "store", camera)
    (outcome,) = ingest_fits(store, path)
    assert (outcome.status, outcome.reason) == ("ingested", "")
    assert store.schema("raw").variable("image").dtype == dtype
    check(store, 3, raws)


def test_one_file_per_detector_makes_whole_exposures(
    tmp_path: Path, night: Path, make_camera: MakeCamera, make_raws: MakeRaws
) -> None:
    camera = make_camera(file="detector", hdu="amplifier")
    for exposure in (1, 2):
        for name, raw in make_raws(exposure).items():
            write_raw_fits(night / f"{exposure}-{name}.fits", camera, {name: raw})
    store = create_store(tmp_path / "store", camera)
    assert [outcome.status for outcome in ingest_fits(store, night)] == ["ingested"] * 4
    assert store.exposures()["available"].values.all()
    check(store, 2, make_raws(2))


def test_a_detector_may_be_named_by_its_number(
    tmp_path: Path, make_camera: MakeCamera, make_raws: MakeRaws
) -> None:
    camera = make_camera(file="detector")
    raws = make_raws(1, ["right"])
    path = write_raw_fits(tmp_path / "1.fits", camera, raws, {"CCDNAME": 12})
    assert scan_file(camera, path).detector_names == ("right",)
    path = write_raw_fits(tmp_path / "2.fits", camera, raws, {"CCDNAME": "13"})
    with pytest.raises(IngestError, match=r"CCDNAME names the detector '13'.*use the right camera"):
        scan_file(camera, path)
    path = write_raw_fits(tmp_path / "3.fits", camera, raws, {"CCDNAME": None})
    with pytest.raises(IngestError, match="CCDNAME, which names the detector, is missing"):
        scan_file(camera, path)


@pytest.mark.parametrize("name", ["1.fits.gz", "1.fits.bz2"])
def test_packed_files_are_read(
    store: Store, night: Path, write: Callable[..., Path], make_raws: MakeRaws, name: str
) -> None:
    plain = write(1)
    packed = (gzip if name.endswith("gz") else bz2).compress(plain.read_bytes())
    (night / name).write_bytes(packed)
    plain.unlink()
    (outcome,) = ingest_fits(store, night)
    assert outcome.status == "ingested"
    check(store, 1, make_raws(1))


def test_a_primary_image_is_found_also_where_compression_moved_it(
    tmp_path: Path, make_camera: MakeCamera
) -> None:
    text = make_camera().text.replace('hdu: "{detector}"\n', "hdu: 0\n")
    text = text[: text.index("  - {name: right")]
    from skyloom.storage.camera import parse_camera

    camera = parse_camera(text, "one.yaml")
    image = np.arange(120, dtype="uint16").reshape(6, 20)
    keys = fits.Header({"EXPID": 5, "OBSTYPE": "flat", "EXPTIME": 1.0})
    fits.PrimaryHDU(image, keys).writeto(tmp_path / "plain.fits")
    keys["EXPID"] = 6
    packed = fits.CompImageHDU(image, keys)
    fits.HDUList([fits.PrimaryHDU(), packed]).writeto(tmp_path / "packed.fits.fz")
    store = create_store(tmp_path / "store", camera)
    outcomes = ingest_fits(store, [tmp_path / "plain.fits", tmp_path / "packed.fits.fz"])
    assert [outcome.status for outcome in outcomes] == ["ingested", "ingested"]
    for exposure in (5, 6):
        found = store.read_block("raw", {"exposure": exposure, "detector": "left"})
        np.testing.assert_array_equal(found["image"], image)


def test_header_values_are_translated_and_kept(store: Store, write: Callable[..., Path]) -> None:
    def change(hdus: fits.HDUList) -> None:
        header = hdus[0].header
        header["OBSTYPE"] = "Flat Field "
        header["DATE-OBS"] = "2026-11-21T12:00:00.000"
        del header["MJD-OBS"]
        header["OBSERVER"] = "Dorothea"
        header["CCDTEMP"] = -101.5
        header["RNA"] = 3.25
        hdus["left"].header["CCDTEMP"] = -99.0  # the detector's own header wins

    ingest_fits(store, write(1, change=change))
    left = store.read_block("raw", {"exposure": 1, "detector": "left"})
    assert str(left["observation_type"].values) == "flat"
    assert float(left["mjd_start"]) == 61365.5
    assert str(left["operator"].values) == "Dorothea"
    assert float(left["temperature"]) == -99.0
    np.testing.assert_array_equal(left["header_read_noise"].sel(amp=["A", "B"]), [3.25, np.nan])
    right = store.read_block("raw", {"exposure": 1, "detector": "right"})
    assert float(right["temperature"]) == -101.5
    record = store.read_record("ingest", {"exposure": 1, "detector": "left"})
    assert record is not None
    assert record.headers["operator"] == "Dorothea"
    assert record.inputs["size"] > 0


def test_missing_optional_keys_become_nan_or_empty(
    store: Store, write: Callable[..., Path]
) -> None:
    ingest_fits(store, write(1, change=lambda hdus: hdus[0].header.remove("MJD-OBS")))
    raw = store.read_block("raw", {"exposure": 1, "detector": "left"})
    assert np.isnan(raw["mjd_start"])
    assert np.isnan(raw["flux"])
    assert str(raw["physical_filter"].values) == ""


def test_an_observation_type_without_translation_is_noted(
    store: Store, write: Callable[..., Path]
) -> None:
    path = write(1, change=lambda hdus: hdus[0].header.set("OBSTYPE", "flat fieldd"))
    (outcome,) = ingest_fits(store, path)
    assert outcome.status == "ingested"
    assert "'flat fieldd', which the camera does not translate" in outcome.notes[0]
    assert "did you mean flat field?" in outcome.notes[0]


def test_a_file_with_some_of_the_detectors_is_ingested(
    store: Store, write: Callable[..., Path], make_raws: MakeRaws
) -> None:
    (outcome,) = ingest_fits(store, write(1, change=lambda hdus: hdus.__delitem__(1)))
    assert outcome.detectors == ("right",)
    assert outcome.notes == ("no image of 1 of 2 detectors of the camera (left)",)
    check(store, 1, {"right": make_raws(1)["right"]})


def test_nan_pixels_are_kept(
    store: Store, camera: Camera, night: Path, make_raws: MakeRaws
) -> None:
    raws = make_raws(1, dtype="float32")
    raws["left"]["image"][2, 3] = np.nan
    ingest_fits(store, write_raw_fits(night / "1.fits", camera, raws))
    check(store, 1, raws)


def test_blank_pixels_of_whole_numbers_become_nan(store: Store, write: Callable[..., Path]) -> None:
    def change(hdus: fits.HDUList) -> None:
        for name in ("left", "right"):
            pixels = np.arange(120, dtype="int16").reshape(6, 20)
            header = fits.Header({"BLANK": 5})
            hdus[name] = fits.ImageHDU(pixels, header, name=name)

    ingest_fits(store, write(1, change=change))
    image = store.read_block("raw", {"exposure": 1, "detector": "left"})["image"]
    assert image.dtype == np.float32
    assert np.isnan(image[0, 5])
    assert int(np.isnan(image).sum()) == 1


def test_directories_are_searched_for_names_like_fits(tmp_path: Path) -> None:
    names = ["a.fits", "b.fit.gz", "sub/c.fits.fz", "sub/d.FTS", "e.txt", ".hidden.fits"]
    for name in names:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    found = [path.name for path in find_files([tmp_path, tmp_path / "a.fits", tmp_path / "e.txt"])]
    assert found == ["a.fits", "b.fit.gz", "e.txt", "c.fits.fz", "d.FTS"]


def test_ingest_runs_on_any_scheduler_with_the_same_result(
    tmp_path: Path, camera: Camera, write: Callable[..., Path], night: Path
) -> None:
    for exposure in range(1, 5):
        write(exposure)
    prints = []
    for scheduler in ("sync", "threads"):
        store = create_store(tmp_path / scheduler, camera)
        with dask.config.set(scheduler=scheduler):
            ingest_fits(store, night)
        prints.append({key: r.fingerprint for key, r in store.records("ingest").items()})
    assert prints[0] == prints[1]
    assert len(prints[0]) == 8


def test_exposures_are_listed_with_what_is_known(store: Store, write: Callable[..., Path]) -> None:
    write(2)
    one = write(1, change=lambda hdus: hdus.__delitem__(1))
    ingest_fits(store, one.parent)
    found = store.exposures()
    assert found["exposure"].values.tolist() == [1, 2]
    assert found["exposure_time"].values.tolist() == [1.5, 3.0]
    assert found["exposure_time"].attrs["units"] == "s"
    assert found["available"].values.tolist() == [[False, True], [True, True]]
    assert store["raw"]["observation_type"].values.tolist() == ["flat", "flat"]


# Again -----------------------------------------------------------------------------------------
def test_a_second_ingest_does_no_work(
    store: Store, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(1)
    ingest_fits(store, path)
    before = store.records("ingest")
    monkeypatch.setattr(Store, "write_block", None)
    (outcome,) = ingest_fits(open_store(store.url), path)
    assert (outcome.status, outcome.bytes_read) == ("unchanged", 0)
    assert store.records("ingest") == before


def test_a_copy_of_an_exposure_in_another_file_is_no_work(
    store: Store, camera: Camera, write: Callable[..., Path], night: Path, make_raws: MakeRaws
) -> None:
    ingest_fits(store, write(1))
    copy = write_raw_fits(night / "copy.fits.fz", camera, make_raws(1), compress=True)
    (outcome,) = ingest_fits(store, copy)
    assert outcome.status == "unchanged"
    assert outcome.bytes_written == 0


@pytest.mark.parametrize("together", [True, False])
def test_another_exposure_with_the_same_id_is_rejected_by_name(
    store: Store, write: Callable[..., Path], make_raws: MakeRaws, together: bool
) -> None:
    first = write(1, "a.fits")
    second = write(2, "b.fits", lambda hdus: hdus[0].header.set("EXPID", 1))
    if together:
        outcomes = ingest_fits(store, [first, second])
    else:
        outcomes = ingest_fits(store, first) + ingest_fits(store, second)
    assert [outcome.status for outcome in outcomes] == ["ingested", "rejected"]
    reason = outcomes[1].reason
    assert str(second) in reason
    assert f"exposure 1 is in the store already with other content, from {first}" in reason
    check(store, 1, make_raws(1))
    (again,) = ingest_fits(store, second, replace_existing=True)
    assert again.status == "ingested"
    np.testing.assert_array_equal(
        store.read_block("raw", {"exposure": 1, "detector": "left"})["image"],
        make_raws(2)["left"]["image"],
    )


def test_the_same_pixels_with_another_exposure_time_are_other_content(
    store: Store, write: Callable[..., Path]
) -> None:
    ingest_fits(store, write(1, "a.fits"))
    (outcome,) = ingest_fits(
        store, write(1, "b.fits", lambda hdus: hdus[0].header.set("EXPTIME", 99.0))
    )
    assert "other content" in outcome.reason


def test_a_file_corrected_in_place_is_ingested_again(
    store: Store, write: Callable[..., Path]
) -> None:
    ingest_fits(store, write(1))
    Path(store.url).parent.joinpath("night", "1.fits").unlink()
    path = write(1, change=lambda hdus: hdus[0].header.set("EXPTIME", 99.0))
    (outcome,) = ingest_fits(store, path)
    assert outcome.status == "ingested"
    raw = store.read_block("raw", {"exposure": 1, "detector": "left"})
    assert float(raw["exposure_time"]) == 99.0


def test_later_nights_extend_the_store(
    store: Store, write: Callable[..., Path], make_raws: MakeRaws
) -> None:
    ingest_fits(store, write(2))
    ingest_fits(store, write(1))
    check(store, 1, make_raws(1))
    check(store, 2, make_raws(2))
    assert store.labels("raw")["exposure"] == [2, 1]


# Bad files -------------------------------------------------------------------------------------
def bad_shape(hdus: fits.HDUList) -> None:
    hdus["left"].data = np.zeros((6, 21), "uint16")


BAD = {
    "EXPTIME is missing": (
        lambda hdus: hdus[0].header.remove("EXPTIME"),
        r"header key EXPTIME \(exposure_time\) is missing.*add it to the file or correct",
    ),
    "a key is misspelt": (
        lambda hdus: hdus[0].header.rename_keyword("EXPTIME", "EXPTIM"),
        "EXPTIME .*missing; did you mean EXPTIM",
    ),
    "EXPTIME is text": (
        lambda hdus: hdus[0].header.set("EXPTIME", "long"),
        "EXPTIME .* is 'long', not a time in seconds",
    ),
    "EXPTIME is negative": (
        lambda hdus: hdus[0].header.set("EXPTIME", -1.0),
        "EXPTIME .* is -1.0, not a time in seconds",
    ),
    "the exposure id is missing": (
        lambda hdus: hdus[0].header.remove("EXPID"),
        r"EXPID \(exposure\) is missing",
    ),
    "the exposure id is not whole": (
        lambda hdus: hdus[0].header.set("EXPID", 1.5),
        "EXPID .* is 1.5, not a whole number",
    ),
    "the exposure id is a path": (
        lambda hdus: hdus[0].header.set("EXPID", "../../etc/passwd"),
        "not a whole number",
    ),
    "the type is missing": (
        lambda hdus: hdus[0].header.remove("OBSTYPE"),
        r"OBSTYPE \(observation_type\) is missing",
    ),
    "no HDU is known": (
        lambda hdus: [hdus[i].header.set("EXTNAME", f"CCD{i}") for i in (1, 2)],
        r"no HDU belongs to a detector of camera tiny \(left, right\); its images are 1 CCD1",
    ),
}


@pytest.mark.parametrize("what", BAD)
def test_a_bad_header_is_rejected_by_file_key_and_remedy_and_the_rest_goes_on(
    store: Store, write: Callable[..., Path], make_raws: MakeRaws, what: str
) -> None:
    change, message = BAD[what]
    good, bad = write(1), write(2, change=change)
    outcomes = ingest_fits(store, good.parent)
    assert [outcome.status for outcome in outcomes] == ["ingested", "rejected"]
    with pytest.raises(IngestError, match=message):
        raise IngestError(outcomes[1].reason)
    assert outcomes[1].reason.startswith(str(bad))
    check(store, 1, make_raws(1))
    assert store.labels("raw")["exposure"] == [1]
    record = store.read_record("ingest_files", {"file": str(bad)})
    assert record is not None
    assert (record.status, record.reason) == ("failed", outcomes[1].reason)


@pytest.mark.parametrize("keep", [0, 100, 2880, 5000, 6000, 9000])
@pytest.mark.parametrize("packed", [False, True])
def test_a_truncated_file_is_rejected(
    store: Store, write: Callable[..., Path], make_raws: MakeRaws, keep: int, packed: bool
) -> None:
    good, bad = write(1), write(2)
    content = bad.read_bytes()
    assert len(content) > keep
    if packed:
        squeezed = gzip.compress(content)
        bad.write_bytes(squeezed[: keep * len(squeezed) // len(content)])
    else:
        bad.write_bytes(content[:keep])
    outcomes = ingest_fits(store, good.parent)
    assert [outcome.status for outcome in outcomes] == ["ingested", "rejected"]
    assert str(bad) in outcomes[1].reason
    assert any(
        word in outcomes[1].reason
        for word in ("truncated", "empty", "not a FITS", "cannot be read")
    ) or (keep == 2880 and "no HDU belongs" in outcomes[1].reason)
    check(store, 1, make_raws(1))


@settings(deadline=None, max_examples=40, suppress_health_check=list(HealthCheck))
@given(position=st.integers(0, 20000), value=st.integers(0, 255))
def test_a_damaged_file_is_never_more_than_rejected(
    write: Callable[..., Path], camera: Camera, position: int, value: int
) -> None:
    path = write(1, "damaged.fits")
    content = bytearray(path.read_bytes())
    content[position % len(content)] = value
    path.write_bytes(content)
    reason = str(path)
    try:
        scan_file(camera, path)
    except IngestError as error:
        reason = str(error)
    finally:
        path.unlink()
    assert str(path) in reason


def test_files_that_are_not_fits_are_rejected(store: Store, night: Path) -> None:
    (night / "text.fits").write_text("dear diary")
    (night / "empty.fits").touch()
    (night / "zip.fits.gz").write_bytes(b"\x1f\x8bnot really")
    outcomes = ingest_fits(store, [night, night / "missing.fits"])
    reasons = {Path(outcome.path).name: outcome.reason for outcome in outcomes}
    assert "not a FITS file; check what it is" in reasons["text.fits"]
    assert "the file is empty; fetch it again" in reasons["empty.fits"]
    assert "fetch it again" in reasons["zip.fits.gz"]
    assert "there is no such file; check the path" in reasons["missing.fits"]
    assert "raw" not in store


def test_an_unreadable_file_is_rejected(
    store: Store, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import builtins

    path = write(1)
    real = builtins.open

    def deny(file: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(str(file)) == path:
            raise PermissionError(13, "Permission denied", str(file))
        return real(file, *args, **kwargs)

    monkeypatch.setattr(builtins, "open", deny)
    (outcome,) = ingest_fits(store, path)
    assert outcome.reason == f"{path}: permission is denied; make it readable"


def test_a_wrong_shape_costs_one_detector(
    store: Store, write: Callable[..., Path], make_raws: MakeRaws
) -> None:
    path = write(1, change=bad_shape)
    (outcome,) = ingest_fits(store, path)
    assert (outcome.status, outcome.detectors) == ("ingested", ("right",))
    assert (
        "HDU 1 (detector left) has 6 x 21 pixels, the camera says 6 x 20 (rows x columns); "
        "correct the camera's shape"
    ) in outcome.reason
    check(store, 1, {"right": make_raws(1)["right"]})


def test_an_image_of_nothing_but_nan_costs_one_detector(
    store: Store, camera: Camera, night: Path, make_raws: MakeRaws
) -> None:
    raws = make_raws(1, dtype="float32")
    raws["left"]["image"][:] = np.nan
    path = write_raw_fits(night / "1.fits", camera, raws)
    (outcome,) = ingest_fits(store, path)
    assert outcome.detectors == ("right",)
    assert f"{path}: detector left, HDU 1: no pixel is finite" in outcome.reason
    record = store.read_record("ingest", {"exposure": 1, "detector": "left"})
    assert record is not None
    assert record.status == "failed"
    assert store.exposures()["available"].values.tolist() == [[False, True]]


def test_a_missing_amplifier_costs_one_detector(
    tmp_path: Path, make_camera: MakeCamera, make_raws: MakeRaws
) -> None:
    camera = make_camera(hdu="amplifier")
    path = write_raw_fits(tmp_path / "1.fits", camera, make_raws(1))
    with fits.open(path, mode="update", memmap=False) as hdus:
        del hdus["left-B"]
    facts = scan_file(camera, path)
    assert facts.detector_names == ("right",)
    assert "HDU left-B (detector left, amplifier B) is missing" in facts.problems[0]


def test_pixels_that_do_not_fit_the_store_are_rejected_with_a_remedy(
    tmp_path: Path, make_camera: MakeCamera, make_raws: MakeRaws
) -> None:
    camera = make_camera(pixel_type="uint16")
    raws = make_raws(1, dtype="int32")
    raws["left"]["image"][0, 0] = -1
    path = write_raw_fits(tmp_path / "1.fits", camera, raws)
    store = create_store(tmp_path / "store", camera)
    (outcome,) = ingest_fits(store, path)
    assert outcome.detectors == ("right",)
    assert "do not fit uint16; set pixel_type: int32 in the camera" in outcome.reason


def test_altered_pixels_are_noticed_where_the_file_has_checksums(
    store: Store, camera: Camera, night: Path, make_raws: MakeRaws
) -> None:
    for compress in (False, True):
        path = write_raw_fits(night / f"{compress}.fits", camera, make_raws(1), compress=compress)
        content = bytearray(path.read_bytes())
        content[-2880] ^= 0x10  # the last block is data
        path.write_bytes(content)
        (outcome,) = ingest_fits(store, path)
        assert outcome.status == "rejected"
        assert f"{path}: the data of HDU" in outcome.reason
        assert "do not match its DATASUM" in outcome.reason


def test_a_flow_may_spread_the_three_steps_itself(
    store: Store, camera: Camera, write: Callable[..., Path], make_raws: MakeRaws
) -> None:
    paths = [write(exposure) for exposure in (1, 2)]
    plan = plan_ingest(store, [scan_file(camera, path) for path in paths])
    assert [len(wave) for wave in plan.waves] == [2]
    for task in plan.waves[0]:
        assert ingest_file(store.url, task).status == "ingested"
    check(store, 2, make_raws(2))


# Pieces ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"BITPIX": 8}, "uint16"),
        ({"BITPIX": 16}, "int32"),
        ({"BITPIX": 16, "BZERO": 32768}, "uint16"),
        ({"BITPIX": 16, "BZERO": 32768, "BLANK": 0}, "float32"),
        ({"BITPIX": 16, "BSCALE": 0.5}, "float32"),
        ({"BITPIX": 16, "BZERO": 10}, "float32"),
        ({"BITPIX": 32}, "int32"),
        ({"BITPIX": 32, "BZERO": 2**31}, "int32"),
        ({"BITPIX": 64}, "int32"),
        ({"BITPIX": -32}, "float32"),
        ({"BITPIX": -64}, "float32"),
    ],
)
def test_pixel_types_follow_the_header(keys: dict[str, Any], expected: str) -> None:
    assert pixel_type(fits.Header(keys)) == expected


@given(
    st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=5),
    st.sampled_from(["uint16", "int32", "float32"]),
    st.sampled_from(["int64", "float64"]),
)
def test_a_cast_is_exact_or_refused(values: list[int], dtype: str, source: str) -> None:
    pixels = np.array([values], source)
    limits = {"uint16": (0, 65535), "int32": (-(2**31), 2**31 - 1), "float32": (-(2**24), 2**24)}
    low, high = limits[dtype]
    if low <= min(values) and max(values) <= high:
        np.testing.assert_array_equal(cast_pixels(pixels, dtype), pixels)
        assert cast_pixels(pixels, dtype).dtype == dtype
    elif (source, dtype) == ("float64", "float32"):
        np.testing.assert_allclose(cast_pixels(pixels, dtype), pixels, rtol=2**-24)
    else:
        with pytest.raises(ValueError, match="set pixel_type"):
            cast_pixels(pixels, dtype)
