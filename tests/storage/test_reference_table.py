"""Photon transfer curves in the layout of the reference come back as they went."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xarray as xr
from astropy.io import fits
from astropy.table import Table

from skyloom.algorithms.errors import SchemaError, StoreError
from skyloom.algorithms.vocabulary import AmplifierFlag, PairStatus
from skyloom.storage.dataset_schema import schema_problems
from skyloom.storage.reference_columns import (
    AMPLIFIER_VALUES,
    PAIR_AMPLIFIER_VALUES,
    PAIR_VALUES,
)
from skyloom.storage.reference_table import read_reference_table, write_reference_table
from skyloom.storage.schemas import PTC

PAIRS, AMPS, SIDE, FITTED = 6, ("C00", "C01", "C10"), 4, 3


def solved(model: str = "exact") -> xr.Dataset:
    """Return a complete block in which no two numbers are equal."""
    rng = np.random.default_rng(8)
    sizes = {"pair": PAIRS, "amp": len(AMPS), "lag_y": SIDE, "lag_x": SIDE}
    sizes |= {"parameter": 6, "parameter_2": 6}
    found = xr.Dataset(coords={"amp": list(AMPS), "lag_y": range(SIDE), "lag_x": range(SIDE)})
    for variable in PTC.variables:
        dims = tuple(dim for dim in variable.dims if dim not in PTC.block)
        values = rng.uniform(1, 2, [sizes[dim] for dim in dims])
        if variable.dtype != "float64":
            values = np.zeros(values.shape)
        found[variable.name] = (dims, values.astype(variable.dtype), variable.attributes())
    found["exposure_1"] = ("pair", 2021120700000 + 2 * np.arange(PAIRS))
    found["exposure_2"] = ("pair", 2**53 + 1 + 2 * np.arange(PAIRS))
    used = np.ones((PAIRS, len(AMPS)), dtype=bool)
    used[-1], used[2, 1] = False, False
    found["used"] = (("pair", "amp"), used)
    found["amp_flag"] = ("amp", np.array([0, int(AmplifierFlag.BAD), 0], dtype=np.int32))
    found["covariance_count"] = found.covariance_count + 9000
    found["dof"] = found.dof + 40
    for name in ("a", "b", "c", "a_sigma", "noise_matrix", "covariance_model"):
        outside = (found.lag_y >= FITTED) | (found.lag_x >= FITTED)
        found[name] = found[name].where(~outside)
    found["covariance"][1, 2] = np.nan
    found["aux_CCDTEMP"] = ("pair", rng.uniform(-101, -100, PAIRS))
    return found.assign_attrs(model=model)


def written(tmp_path: Path, suffix: str = ".fits", **changes: Any) -> tuple[xr.Dataset, Path]:
    ptc = solved().assign(changes)
    path = tmp_path / f"ptc{suffix}"
    write_reference_table(ptc, path, detector="R22_S11")
    return ptc, path


def rewritten(path: Path, remove: tuple[str, ...] = (), **changes: Any) -> Path:
    """Change header keys (upper case) and columns of a FITS table, as an older version has it."""
    with fits.open(path) as hdus:
        table = Table(np.array(hdus[1].data).byteswap().view(hdus[1].data.dtype.newbyteorder("=")))
        header = hdus[1].header
        keys = {key: header[key] for key in ("PTC_VERSION", "PTC_FIT_TYPE", "MODEL", "DETECTOR")}
    for name, value in changes.items():
        if name in table.colnames or name.startswith("PTCAUX_"):
            table[name] = value
        else:
            keys[name] = value
    table.remove_columns(list(remove))
    hdu = fits.BinTableHDU(table)
    for key, value in keys.items():
        hdu.header[key if len(key) <= 8 else f"HIERARCH {key}"] = value
    target = path.with_name("changed.fits")
    fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(target, overwrite=True)
    return target


@pytest.mark.parametrize("suffix", [".fits", ".ecsv"])
def test_what_the_layout_has_a_place_for_comes_back_exactly(tmp_path: Path, suffix: str) -> None:
    ptc, path = written(tmp_path, suffix)
    before = ptc.copy(deep=True)
    again = read_reference_table(path)
    xr.testing.assert_identical(ptc, before)
    exact = [*AMPLIFIER_VALUES, *PAIR_AMPLIFIER_VALUES, *PAIR_VALUES, "exposure_1", "exposure_2"]
    exact += ["covariance", "covariance_model", "a", "b", "used", "amp_flag", "aux_CCDTEMP"]
    exact += ["rolloff_scale", "rolloff_scale_sigma"]
    for name in exact:
        have = again[name].transpose(*ptc[name].dims)
        np.testing.assert_array_equal(have, ptc[name], err_msg=name)
        assert have.attrs.get("units") == ptc[name].attrs.get("units", ""), name
    fitted = {"lag_y": slice(FITTED), "lag_x": slice(FITTED)}
    np.testing.assert_array_equal(again.noise_matrix.isel(fitted), ptc.noise_matrix.isel(fitted))
    np.testing.assert_allclose(again.covariance_sigma, ptc.covariance_sigma, rtol=1e-15)
    assert again.attrs["model"] == "exact"
    assert again.attrs["reference_fit_type"] == "FULLCOVARIANCE_NO_B"
    assert str(again.detector.values) == "R22_S11"
    assert again.amp.to_numpy().tolist() == list(AMPS)


@pytest.mark.parametrize("suffix", [".fits", ".ecsv"])
def test_what_is_read_is_a_block_of_the_product(tmp_path: Path, suffix: str) -> None:
    _, path = written(tmp_path, suffix)
    again = read_reference_table(path).drop_vars("aux_CCDTEMP")
    assert schema_problems(again, PTC) == []


def test_lags_are_stored_x_first_and_pair_by_pair(tmp_path: Path) -> None:
    ptc, path = written(tmp_path)
    with fits.open(path) as hdus:
        row = hdus[1].data[0]
        covariances = row["COVARIANCES"].reshape(PAIRS, SIDE, SIDE)
        a = row["A_MATRIX"].reshape(FITTED, FITTED)
    one = ptc.isel(amp=0)
    np.testing.assert_array_equal(covariances, one.covariance.transpose("pair", "lag_x", "lag_y"))
    # row 0, column 1 of the reference is the neighbour along y
    assert a[0, 1] == float(one.a.sel(lag_y=1, lag_x=0))
    assert a[0, 1] != float(one.a.sel(lag_y=0, lag_x=1))


def test_a_table_made_by_hand_in_their_order_is_read_in_ours(tmp_path: Path) -> None:
    side, pairs = 3, 2
    theirs = np.arange(side * side, dtype=float).reshape(side, side)  # [x, y]
    covariances = np.stack([100 + theirs, 200 + theirs])
    table = Table(
        {
            "AMPLIFIER_NAME": ["C00"],
            "PTC_FIT_TYPE": ["FULLCOVARIANCE"],
            "COV_MATRIX_SIDE": [side],
            "RAW_MEANS": [[1e3, 2e3]],
            "A_MATRIX": [theirs.ravel()],
            "COVARIANCES": [covariances.ravel()],
        },
        meta={"PTC_VERSION": 2.6},
    )
    table.write(tmp_path / "hand.ecsv", format="ascii.ecsv")
    found = read_reference_table(tmp_path / "hand.ecsv")
    for x in range(side):
        for y in range(side):
            at = {"lag_y": y, "lag_x": x}
            assert float(found.a.sel(at)[0]) == theirs[x, y]
            for pair in range(pairs):
                assert float(found.covariance.sel(at)[pair, 0]) == covariances[pair, x, y]
    assert found.attrs["model"] == "series4"
    images = np.array([1, 2, 2])
    assert float(found.sum_a[0]) == pytest.approx((np.outer(images, images) * theirs).sum())
    assert np.isnan(found.gain).all()
    assert (found.exposure_1 == -1).all()


def test_the_columns_are_those_that_readers_of_the_reference_ask_for(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    with fits.open(path) as hdus:
        names, header = set(hdus[1].columns.names), hdus[1].header
    expected = [
        "AMPLIFIER_NAME",
        "PTC_FIT_TYPE",
        "COV_MATRIX_SIDE",
        "COV_MATRIX_SIDE_FULL_COV_FIT",
        "INPUT_EXP_ID_PAIRS",
        "INPUT_EXP_PAIR_MJD_START",
        "EXP_ID_MASK",
        "EXP_ID_ROLLOFF_MASK",
        "RAW_EXP_TIMES",
        "RAW_MEANS",
        "RAW_VARS",
        "RAW_DELTAS",
        "ROW_MEAN_VARIANCE",
        "GAIN",
        "GAIN_ERR",
        "GAIN_UNADJUSTED",
        "GAIN_LIST",
        "OVERSCAN_MEDIAN_LIST",
        "OVERSCAN_MEDIAN",
        "OVERSCAN_MEDIAN_SIGMA",
        "NOISE_LIST",
        "NOISE",
        "NOISE_ERR",
        "HIST_VARS",
        "HIST_CHI2_DOFS",
        "KS_PVALUES",
        "PTC_FIT_PARS",
        "PTC_FIT_PARS_ERROR",
        "PTC_FIT_CHI_SQ",
        "PTC_TURNOFF",
        "PTC_TURNOFF_SAMPLING_ERROR",
        "PTC_ROLLOFF",
        "PTC_ROLLOFF_ERROR",
        "PTC_ROLLOFF_TAU",
        "PTC_ROLLOFF_TAU_ERROR",
        "A_MATRIX",
        "B_MATRIX",
        "NOISE_MATRIX",
        "BAD_AMPS",
        "PHOTO_CHARGE",
        "PHOTO_CHARGE_DELTAS",
        "AMP_OFFSETS",
        "NPIXEL_COVARIANCES",
        "COVARIANCES",
        "COVARIANCES_MODEL",
        "COVARIANCES_SQRT_WEIGHTS",
        "FINAL_VARS",
        "FINAL_MODEL_VARS",
        "FINAL_MEANS",
    ]
    assert names == {*expected, "PTCAUX_CCDTEMP"}
    assert header["PTC_VERSION"] == 2.6
    assert header["OBSTYPE"] == "PTC"
    assert header["PTC_FIT_TYPE"] == "FULLCOVARIANCE_NO_B"


def test_pairs_that_were_not_used_are_empty_in_the_final_columns(tmp_path: Path) -> None:
    ptc, path = written(tmp_path)
    with fits.open(path) as hdus:
        final = hdus[1].data["FINAL_MEANS"]
    np.testing.assert_array_equal(np.isfinite(final), ptc.used.transpose("amp", "pair"))


def test_status_tells_measured_pairs_from_failed_ones(tmp_path: Path) -> None:
    ptc = solved()
    ptc["mean"][3, 0] = np.nan
    ptc["covariance"][3, 0] = np.nan
    path = tmp_path / "ptc.fits"
    write_reference_table(ptc, path)
    again = read_reference_table(path)
    status = again.pair_status.transpose("pair", "amp")
    assert int(status[3, 0]) == PairStatus.ILLEGAL_MEAN
    assert int(status[1, 2]) == PairStatus.NONFINITE_STAT
    assert int(status[0, 0]) == PairStatus.OK
    assert int(again.covariance_count.sel(amp="C10")[1].max()) == 0
    assert (again.covariance_count.sel(amp="C00")[0] == 9000).all()


def test_the_variance_fit_keeps_its_parameters_with_errors(tmp_path: Path) -> None:
    ptc = solved("exp00")
    corner = (ptc.lag_y == 0) & (ptc.lag_x == 0)
    for name in ("a", "a_sigma", "noise_matrix", "noise_matrix_sigma"):
        ptc[name] = ptc[name].where(corner)
    path = tmp_path / "ptc.fits"
    write_reference_table(ptc, path)
    with fits.open(path) as hdus:
        assert hdus[1].data["PTC_FIT_TYPE"][0] == "EXPAPPROXIMATION"
        assert hdus[1].data["PTC_FIT_PARS"].shape == (3, 3)
        assert hdus[1].data["PTC_FIT_PARS"][1, 1] == float(ptc.gain[1])
    again = read_reference_table(path)
    assert again.attrs["model"] == "exp00"
    for name in ("a", "a_sigma", "noise_matrix", "noise_matrix_sigma"):
        np.testing.assert_array_equal(again[name], ptc[name], err_msg=name)
    values = again.parameter_value.sel(parameter=["gain", "n_00", "a_00"])
    np.testing.assert_array_equal(values[:, 0], ptc.gain)
    np.testing.assert_array_equal(values[:, 2], ptc.a[:, 0, 0])


def test_noise_before_version_1_9_is_taken_out_of_the_square(tmp_path: Path) -> None:
    ptc, path = written(tmp_path)
    for fit_type, version, squared in (
        ("FULLCOVARIANCE", 1.8, True),
        ("FULLCOVARIANCE", 1.9, False),
        ("EXPAPPROXIMATION", 1.8, False),
    ):
        old = rewritten(
            path,
            PTC_VERSION=version,
            PTC_FIT_TYPE=[fit_type] * 3,
            PTC_FIT_PARS=np.ones((3, 3)),
            PTC_FIT_PARS_ERROR=np.ones((3, 3)),
            NOISE=np.array([25.0, -4.0, 36.0]),
        )
        expected = [5.0, np.nan, 6.0] if squared else [25.0, -4.0, 36.0]
        np.testing.assert_array_equal(read_reference_table(old).noise, expected)
        np.testing.assert_array_equal(read_reference_table(old).noise_sigma, ptc.noise_sigma)


def test_a_table_of_version_1_0_gives_what_it_has(tmp_path: Path) -> None:
    ptc, path = written(tmp_path)
    new = [
        "COV_MATRIX_SIDE_FULL_COV_FIT",
        "INPUT_EXP_PAIR_MJD_START",
        "EXP_ID_ROLLOFF_MASK",
        "RAW_DELTAS",
        "ROW_MEAN_VARIANCE",
        "GAIN_UNADJUSTED",
        "GAIN_LIST",
        "OVERSCAN_MEDIAN_LIST",
        "OVERSCAN_MEDIAN",
        "OVERSCAN_MEDIAN_SIGMA",
        "NOISE_LIST",
        "HIST_VARS",
        "HIST_CHI2_DOFS",
        "KS_PVALUES",
        "PTC_TURNOFF",
        "PTC_TURNOFF_SAMPLING_ERROR",
        "PTC_ROLLOFF",
        "PTC_ROLLOFF_ERROR",
        "PTC_ROLLOFF_TAU",
        "PTC_ROLLOFF_TAU_ERROR",
        "NOISE_MATRIX",
        "PHOTO_CHARGE_DELTAS",
        "AMP_OFFSETS",
        "NPIXEL_COVARIANCES",
        "PTCAUX_CCDTEMP",
    ]
    final_means = ptc["mean"].where(ptc.used).transpose("amp", "pair").to_numpy()
    final_means[1] = np.nan
    old = rewritten(path, remove=tuple(new), PTC_VERSION=1.0, MODEL="", FINAL_MEANS=final_means)
    again = read_reference_table(old)
    assert schema_problems(again, PTC) == []
    np.testing.assert_array_equal(again.a, ptc.a)
    np.testing.assert_array_equal(again.covariance, ptc.covariance)
    final = ptc["mean"].where(ptc.used)
    assert np.isnan(again.turnoff[1])
    np.testing.assert_array_equal(again.turnoff[::2], final.max("pair")[::2])
    for name in ("noise_matrix", "pair_gain", "rolloff", "overscan_median", "mjd_start", "ks_p"):
        assert np.isnan(again[name]).all(), name
    assert int(again.covariance_count.max()) == 0
    assert again.attrs["reference_version"] == 1.0


def test_a_rolloff_scale_that_only_copies_the_rolloff_is_dropped(tmp_path: Path) -> None:
    ptc, path = written(tmp_path)
    copied = rewritten(path, PTC_ROLLOFF_TAU=ptc.rolloff.to_numpy())
    again = read_reference_table(copied)
    assert np.isnan(again.rolloff_scale).all()
    np.testing.assert_array_equal(again.rolloff_scale_sigma, ptc.rolloff_scale_sigma)


def test_placeholders_masks_of_numbers_and_nested_pairs_of_old_tables_are_understood(
    tmp_path: Path,
) -> None:
    ptc, path = written(tmp_path)
    mask = np.where(ptc.used.to_numpy().T, 1.0, 0.0)
    mask[0, 0] = np.nan
    with fits.open(path) as hdus:
        ids = np.array(hdus[1].data["INPUT_EXP_ID_PAIRS"]).reshape(3, PAIRS, 1, 2)
    old = rewritten(
        path,
        EXP_ID_MASK=mask,
        HIST_VARS=np.full((3, 1), np.nan),
        INPUT_EXP_ID_PAIRS=ids.astype(np.int64),
    )
    again = read_reference_table(old)
    assert not bool(again.used.transpose("pair", "amp")[0, 0])
    assert bool(again.used.transpose("pair", "amp")[1, 0])
    assert np.isnan(again.histogram_variance).all()
    np.testing.assert_array_equal(again.exposure_2, ptc.exposure_2)


def test_auxiliary_texts_are_left_out_by_name(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    texts = rewritten(path, PTCAUX_FILTER=np.array([["r"] * PAIRS] * 3))
    again = read_reference_table(texts)
    assert again.attrs["not_imported"] == ["FILTER"]
    assert "aux_CCDTEMP" in again


def test_no_bad_amplifiers_is_written_and_read(tmp_path: Path) -> None:
    for suffix in (".fits", ".ecsv"):
        _, path = written(tmp_path, suffix, amp_flag=("amp", np.zeros(3, dtype=np.int32)))
        assert read_reference_table(path).amp_flag.to_numpy().tolist() == [0, 0, 0]


def test_misuse_is_named_before_anything_is_written(tmp_path: Path) -> None:
    ptc, path = written(tmp_path)
    with pytest.raises(StoreError, match="exists"):
        write_reference_table(ptc, path)
    write_reference_table(ptc, path, overwrite=True)
    with pytest.raises(ValueError, match=r"\.fits or \.ecsv"):
        write_reference_table(ptc, tmp_path / "ptc.csv")
    with pytest.raises(ValueError, match="several detectors"):
        write_reference_table(ptc.expand_dims("detector"), tmp_path / "other.fits")
    with pytest.raises(KeyError, match="lacks exposure_2, covariance"):
        write_reference_table(ptc.drop_vars(["exposure_2", "covariance"]), tmp_path / "other.fits")
    assert not (tmp_path / "other.fits").exists()


def test_files_that_are_something_else_are_refused_with_the_reason(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    with pytest.raises(FileNotFoundError, match="no file"):
        read_reference_table(tmp_path / "none.fits")
    (tmp_path / "text.fits").write_text("not a table")
    with pytest.raises(SchemaError, match="no readable FITS"):
        read_reference_table(tmp_path / "text.fits")
    with pytest.raises(SchemaError, match="lacks column COVARIANCES"):
        read_reference_table(rewritten(path, remove=("COVARIANCES",)))
    with pytest.raises(SchemaError, match=r"PTC_VERSION 3\.0"):
        read_reference_table(rewritten(path, PTC_VERSION=3.0))
    with pytest.raises(SchemaError, match="column RAW_VARS holds"):
        read_reference_table(rewritten(path, RAW_VARS=np.ones((3, PAIRS + 1))))
    with pytest.raises(SchemaError, match="10 exposures in INPUT_EXP_ID_PAIRS for 6 pairs"):
        read_reference_table(
            rewritten(path, INPUT_EXP_ID_PAIRS=np.ones((3, PAIRS - 1, 2), dtype=np.int64))
        )
