"""Band-passes are read from tables of several kinds, in nm, or refused by file and column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from skyloom.algorithms.errors import IngestError
from skyloom.storage.throughput import read_throughput

ANGSTROM = np.arange(3900.0, 5610.0, 10.0)
PASSED = np.clip(np.minimum((ANGSTROM - 3950.0) / 200.0, (5550.0 - ANGSTROM) / 100.0), 0.0, 0.8)


def camera_file(folder: Path, unit: str | None = None) -> Path:
    """Write a table as that of DECam is: one column of means, one with a value per detector."""
    each = PASSED[:, None] * (1.0 + 0.01 * np.arange(62))
    columns = [
        fits.Column("lambda", "E", unit=unit, array=ANGSTROM),
        fits.Column("throughput_avg", "E", array=PASSED),
        fits.Column("throughput_ccd", "62E", array=each),
    ]
    path = folder / "g_band.fits"
    fits.BinTableHDU.from_columns(columns).writeto(path)
    return path


@pytest.mark.parametrize("unit", [None, "Angstrom"])
def test_a_table_of_a_camera_is_read_as_its_mean_or_as_one_detector(
    tmp_path: Path, unit: str | None
) -> None:
    path = camera_file(tmp_path, unit)
    mean = read_throughput(path)
    np.testing.assert_allclose(mean["wavelength"], ANGSTROM / 10.0)
    np.testing.assert_allclose(mean, PASSED, rtol=1e-6)
    assert mean["wavelength"].attrs["units"] == "nm"
    one = read_throughput(path, detector=11)
    np.testing.assert_allclose(one, 1.1 * PASSED, rtol=1e-6)
    chosen = read_throughput(path, column="throughput_avg")
    np.testing.assert_array_equal(chosen, mean)


@pytest.mark.parametrize(
    ("name", "text", "factor"),
    [
        ("g.txt", "{0} {1}\n", 1.0),
        ("g.csv", "{0},{1}\n", 0.1),
        ("g.dat", "{0} {1}\n", 1e-4),
    ],
)
def test_text_in_columns_is_read_and_its_unit_is_told_by_its_size(
    tmp_path: Path, name: str, text: str, factor: float
) -> None:
    rows = zip(ANGSTROM[::-1] * factor, PASSED[::-1], strict=True)  # descending, as some are
    (tmp_path / name).write_text("".join(text.format(*row) for row in rows))
    found = read_throughput(tmp_path / name)
    np.testing.assert_allclose(found["wavelength"], ANGSTROM / 10.0)
    np.testing.assert_allclose(found, PASSED)


def test_columns_with_names_and_units_are_found_in_any_order(tmp_path: Path) -> None:
    table = Table({"Transmission": PASSED, "Wavelength": ANGSTROM / 1e4})
    table["Wavelength"].unit = "um"
    table.write(tmp_path / "g.ecsv")
    found = read_throughput(tmp_path / "g.ecsv")
    np.testing.assert_allclose(found["wavelength"], ANGSTROM / 10.0)
    np.testing.assert_allclose(found, PASSED)


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(IngestError, match=r"none\.fits: no table of throughput could be read"):
        read_throughput(tmp_path / "none.fits")
    path = camera_file(tmp_path)
    with pytest.raises(IngestError, match=r"of detectors 1 to 62, got detector 63"):
        read_throughput(path, detector=63)
    with pytest.raises(IngestError, match=r"no column 'green'; there are lambda, throughput_avg"):
        read_throughput(path, column="green")
    (tmp_path / "words.txt").write_text("there is\nnothing here\n")
    with pytest.raises(IngestError, match="words"):
        read_throughput(tmp_path / "words.txt")
    fits.PrimaryHDU(np.zeros((2, 2))).writeto(tmp_path / "image.fits")
    with pytest.raises(IngestError, match="no HDU is a table"):
        read_throughput(tmp_path / "image.fits")
    (tmp_path / "single.txt").write_text("400\n500\n")
    with pytest.raises(IngestError, match="one column only"):
        read_throughput(tmp_path / "single.txt")
    (tmp_path / "plain.txt").write_text("400 1\n500 1\n")
    with pytest.raises(IngestError, match="no column 'throughput_ccd'"):
        read_throughput(tmp_path / "plain.txt", detector=1)
