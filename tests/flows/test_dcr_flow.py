"""Chromatic coadds from frames: templates of visits never seen, refusals, the command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import dcr_night
import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.wcs import WCS
from typer.testing import CliRunner

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import ConfigurationError, StoreError
from skyloom.flows import dcr_coadds
from skyloom.flows.command_line import app
from skyloom.flows.templates import template
from skyloom.storage.records import Record
from skyloom.storage.store import Store, create_store, open_store

BANDS = {dcr_night.FILTER: dcr_night.BAND}
HELD_OUT = (2, 15)
CONFIGURATION: dict[str, Any] = {"bands": BANDS, "held_out": HELD_OUT}


@pytest.fixture(scope="module")
def made() -> dcr_night.DcrNight:
    return dcr_night.dcr_night(dcr_night.small_camera())


@pytest.fixture(scope="module")
def coadded(made: dcr_night.DcrNight, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a store with warps of 16 visits, and coadds of 14 of them."""
    return Path(dcr_night.make_coadds(tmp_path_factory.mktemp("dcr"), made, HELD_OUT).url)


@pytest.fixture(scope="module")
def solved(coadded: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Return a store with chromatic coadds."""
    copy = tmp_path_factory.mktemp("solved") / "store"
    shutil.copytree(coadded, copy)
    store = open_store(copy)
    summary = dcr_coadds(store, CONFIGURATION).run(progress=False)
    assert summary.exit_code == 0, str(summary)
    return store


def test_templates_of_visits_never_seen_leave_far_less_than_the_plain_coadd(
    made: dcr_night.DcrNight, solved: Store
) -> None:
    found = dcr_night.judge(made, solved)
    assert found.residual_template.size == 4
    assert found.ratio <= 0.15
    assert found.false_template <= 0.2 * found.false_coadd
    assert found.false_coadd >= 8


def test_models_agree_with_their_visits_and_say_how_they_ended(solved: Store) -> None:
    record = solved.read_record("dcr", {"physical_filter": "g", "patch": "0-0"})
    assert record is not None
    assert record.quality["status"] == "CONVERGED"
    assert record.quality["visits"] == 14
    assert 0.7 < record.quality["chi2"] < 1.6
    assert record.quality["colour_error"] < 0.05
    block = solved.read_block("dcr", {"physical_filter": "g", "patch": "0-0"})
    used = block["used"].values
    np.testing.assert_array_equal(used, ~np.isin(block["visit"].values, HELD_OUT))
    edges = block["wavelength_edges"].values
    np.testing.assert_allclose(edges[[0, -1], [0, 1]], [402.81, 549.81])
    # Blue ends lie towards the zenith, east and west of the meridian.
    east = block["visit"].values <= 8
    assert (np.sign(block["dispersion_x"].values[used & east]) == 1).all()
    assert (np.sign(block["dispersion_x"].values[used & ~east]) == -1).all()


def test_colours_of_stars_are_those_of_the_truth(made: dcr_night.DcrNight, solved: Store) -> None:
    found, true = dcr_night.moments(made, solved)
    assert found.size >= 3
    np.testing.assert_allclose(found, true, atol=0.01)


def test_the_sum_of_sub_bands_is_a_coadd_of_the_same_flux(solved: Store) -> None:
    block = {"physical_filter": "g", "patch": "0-0"}
    whole, plain = solved.read_block("dcr_coadd", block), solved.read_block("coadd", block)
    good = np.isfinite(plain["image"].values) & (whole["mask"].values & 256 == 0)
    assert float(whole["image"].values[good].sum()) == pytest.approx(
        float(plain["image"].values[good].sum()), rel=2e-3
    )
    assert whole["image"].attrs["units"] == "nJy"


def test_visits_that_were_held_out_are_scored(solved: Store) -> None:
    for visit in HELD_OUT:
        score = solved.read_block("dcr_scores", {"visit": visit, "patch": "0-0"})
        assert int(score["objects"]) >= 5  # one more lacks light at the border of the patch
        assert float(score["ratio"]) < 0.2
        assert float(score["dipole_template"]) < 0.3 * float(score["dipole_coadd"])


def test_running_again_does_nothing_and_a_copy_has_the_same_bits(
    solved: Store, coadded: Path, tmp_path: Path
) -> None:
    assert dcr_coadds(solved, CONFIGURATION).plan().todo == 0
    shutil.copytree(coadded, tmp_path / "store")
    store = open_store(tmp_path / "store")
    assert dcr_coadds(store, CONFIGURATION).run(progress=False).exit_code == 0
    for product in ("dcr", "dcr_coadd"):
        xr.testing.assert_identical(
            store[product].load().drop_attrs(), solved[product].load().drop_attrs()
        )


def test_a_template_is_written_as_fits_with_the_projection_of_the_patch(
    made: dcr_night.DcrNight, solved: Store, tmp_path: Path
) -> None:
    path = tmp_path / "template.fits"
    arguments = ["template", solved.url, str(path), "--altitude", "45", "--parallactic-angle"]
    result = CliRunner().invoke(app, [*arguments, "-120"])
    assert result.exit_code == 0, result.output
    expected = template(solved, altitude=45.0, parallactic_angle=-120.0)
    with fits.open(path) as hdus:
        assert [hdu.name for hdu in hdus] == ["PRIMARY", "IMAGE", "VARIANCE", "MASK", "PSF"]
        np.testing.assert_array_equal(hdus["IMAGE"].data, expected["image"].values)
        np.testing.assert_array_equal(hdus["VARIANCE"].data, expected["variance"].values)
        assert hdus["IMAGE"].header["BUNIT"] == "nJy"
        assert hdus[0].header["ALTITUDE"] == 45.0
        assert hdus[0].header["FILTER"] == "g"
        assert hdus[0].header["PRESSURE"] == pytest.approx(74000.0)
        projection = WCS(hdus["IMAGE"].header)
        assert hdus["PSF"].data.sum() == pytest.approx(1.0, abs=1e-3)
    tract = made.tract()
    box = tract.patch(0).outer
    ra, dec = tract.plane.to_sky(np.array([box.x_start + 5.0]), np.array([box.y_start + 9.0]))
    found = projection.all_pix2world(5.0, 9.0, 0)
    assert (float(found[0]), float(found[1])) == pytest.approx((float(ra[0]), float(dec[0])))
    again = CliRunner().invoke(app, [*arguments, "-120"])
    assert again.exit_code == 2
    assert "exists" in again.output


def test_a_template_that_cannot_be_made_says_what_there_is(solved: Store, tmp_path: Path) -> None:
    place = {"altitude": 45.0, "parallactic_angle": 0.0}
    with pytest.raises(ConfigurationError, match="there is no patch 7; there are 0"):
        template(solved, patch=7, **place)
    with pytest.raises(ConfigurationError, match="there is no band 'r'; there are g"):
        template(solved, band="r", **place)
    with pytest.raises(ConfigurationError, match="altitude must be from 5 to 90"):
        template(solved, altitude=2.0, parallactic_angle=0.0)
    with pytest.raises(StoreError, match="run the flow dcr_coadds first"):
        template(create_store(tmp_path / "empty", "generic"), **place)


def test_what_is_missing_is_refused_by_name_before_pixels_are_read(
    coadded: Path, tmp_path: Path
) -> None:
    store = open_store(coadded)
    with pytest.raises(ConfigurationError, match=r"bands\.g\.lambda_ref: missing"):
        dcr_coadds(store, {"bands": {"g": {"lambda_min": 400.0, "lambda_max": 550.0}}})
    with pytest.raises(ConfigurationError, match="no warps were taken through r; there are"):
        dcr_coadds(store, {"bands": {"r": dcr_night.BAND}})
    mixed = {name: {**dcr_night.BAND, "name": "both"} for name in ("g", "r")}
    with pytest.raises(ConfigurationError, match=r"bands g, r are all named 'both'"):
        dcr_coadds(store, {"bands": mixed})
    with pytest.raises(ConfigurationError, match="bands: lambda_min, lambda_max and lambda_ref"):
        dcr_coadds(store)
    with pytest.raises(ConfigurationError, match="held_out: there are no warps of visits 99"):
        dcr_coadds(store, {"bands": BANDS, "held_out": (99,)})
    shutil.copytree(coadded, tmp_path / "store")
    blind = open_store(tmp_path / "store")
    for key, record in blind.records("ingest").items():
        if record.block[v.EXPOSURE] == 3:
            headers = {**record.headers, "pressure": None, "site_longitude": None}
            blind.write_record(_with_headers(record, headers))
            assert key
    with pytest.raises(
        ConfigurationError,
        match="exposures 3 have no observing conditions: pressure, site_longitude not known",
    ):
        dcr_coadds(blind, CONFIGURATION)


def _with_headers(record: Record, headers: dict[str, Any]) -> Record:
    from dataclasses import replace

    return replace(record, headers=headers)


def test_the_report_shows_displacements_colours_and_held_out_visits(
    solved: Store, tmp_path: Path
) -> None:
    page = dcr_coadds(solved, CONFIGURATION).report(tmp_path / "dcr.html").read_text()
    for text in (
        "Displacements of visits",
        "Agreement of visits with the model",
        "Sub-bands through g in colours",
        "Templates against visits that were held out",
        "CONVERGED",
        "dipole energy over that of the coadd",
    ):
        assert text in page
    assert page.count("data:image/png") >= 4
