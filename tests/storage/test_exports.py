"""Export: others read what was stored, with units and provenance."""

from __future__ import annotations

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import xarray as xr
from astropy import units as u
from astropy.io import fits
from astropy.table import Table

from skyloom.algorithms.errors import StoreError
from skyloom.storage import create_store, export, ingest_fits
from skyloom.storage.camera import Camera
from skyloom.storage.dataset_schema import ProductSchema
from skyloom.storage.exports import write_raw_fits
from skyloom.storage.records import Record
from skyloom.storage.schemas import SCHEMAS
from skyloom.storage.store import Store

MakeCurve = Callable[..., xr.Dataset]
MakeRaws = Callable[..., dict[str, xr.Dataset]]
PAIRS = ["1-2", "3-4"]


@pytest.fixture
def curves(store: Store, curve_schema: ProductSchema, make_curve: MakeCurve) -> Store:
    store.prepare(
        curve_schema,
        {"detector": ["left", "right"], "pair": PAIRS},
        sizes={"lag_y": 3},
        attrs={"model": "exact"},
    )
    store.write_block("curve", {"detector": "right"}, make_curve(PAIRS))
    versions = {"skyloom": "1.2", "numpy": "2.4"}
    store.write_record(
        Record("solve", {"detector": "right"}, "done", config_hash="abc", versions=versions)
    )
    return store


@pytest.mark.parametrize("suffix", ["ecsv", "fits"])
def test_tables_keep_units_matrices_and_provenance(
    curves: Store, make_curve: MakeCurve, tmp_path: Path, suffix: str
) -> None:
    main, pairs = export(curves, "curve", tmp_path / f"curve.{suffix}")
    assert (main.name, pairs.name) == (f"curve.{suffix}", f"curve_pairs.{suffix}")
    data = make_curve(PAIRS)
    table = Table.read(main)
    assert [str(name) for name in table["detector"]] == ["right", "right"]
    assert [str(name) for name in table["amp"]] == ["A", "B"]
    np.testing.assert_array_equal(table["matrix"], data["matrix"])
    if suffix == "ecsv":
        assert table["matrix"].unit == 1 / u.electron
    else:  # the FITS standard has no electron
        assert fits.getheader(main, 1)["TCOMM3"] == "matrix [1/electron]"
    table = Table.read(pairs)
    assert table["mean"].unit == u.adu
    np.testing.assert_array_equal(table["mean"], data["mean"].values.ravel())
    np.testing.assert_array_equal(table["status"], np.repeat(data["status"].values, 2))
    assert [str(name) for name in table["pair"]] == ["1-2", "1-2", "3-4", "3-4"]
    if suffix == "fits":
        header = fits.getheader(main, 1)
        found = {key.removeprefix("skyloom "): value for key, value in header.items()}
        found = {key.lower(): value for key, value in found.items()}
    else:
        found = {key.lower(): value for key, value in Table.read(main).meta.items()}
    found = {key.removeprefix("skyloom "): value for key, value in found.items()}
    assert found["product"] == "curve"
    assert found["config_hash"] == "abc"
    assert found["version numpy"] == "2.4"
    assert found["model"] == "exact"
    assert found["camera"] == "tiny"


def test_csv_has_a_column_an_element_and_its_provenance_beside_it(
    curves: Store, make_curve: MakeCurve, tmp_path: Path
) -> None:
    main, _ = export(curves, "curve", tmp_path / "curve.csv")
    frame = pd.read_csv(main)
    assert list(frame.columns) == ["detector", "amp", "matrix_0", "matrix_1", "matrix_2", "remark"]
    np.testing.assert_allclose(
        frame[["matrix_0", "matrix_1", "matrix_2"]], make_curve(PAIRS)["matrix"]
    )
    provenance = json.loads((tmp_path / "curve.csv.provenance.json").read_text())
    assert provenance["config_hash"] == "abc"


def test_parquet_holds_the_same_numbers(
    curves: Store, make_curve: MakeCurve, tmp_path: Path
) -> None:
    main, pairs = export(curves, "curve", tmp_path / "curve.parquet")
    frame = pd.read_parquet(pairs)
    np.testing.assert_array_equal(frame["mean"], make_curve(PAIRS)["mean"].values.ravel())
    metadata = pq.read_schema(main).metadata
    assert b"config_hash" in b"".join(metadata.values())


def test_parquet_without_its_package_says_what_to_install(
    curves: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "pyarrow":
            raise ImportError("No module named 'pyarrow'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(StoreError, match=r"pip install 'skyloom\[parquet\]'"):
        export(curves, "curve", tmp_path / "curve.parquet")
    assert list(tmp_path.glob("*curve*")) == []


@pytest.mark.parametrize("camera_kind", [{}, {"file": "detector", "hdu": "amplifier"}])
def test_raw_exposures_become_fits_files_that_can_be_ingested_again(
    tmp_path: Path,
    make_camera: Callable[..., Camera],
    make_raws: MakeRaws,
    camera_kind: dict[str, str],
) -> None:
    camera = make_camera(**camera_kind)
    store = create_store(tmp_path / "store", camera)
    for exposure in (1, 2):
        groups = make_raws(exposure)
        if camera_kind:
            for name, raw in groups.items():
                write_raw_fits(tmp_path / f"{exposure}{name}.fits", camera, {name: raw})
        else:
            write_raw_fits(tmp_path / f"{exposure}.fits", camera, groups)
    ingest_fits(store, list(tmp_path.glob("*.fits")))
    written = export(store, "raw", tmp_path / "out")
    assert len(written) == (4 if camera_kind else 2)
    assert fits.getheader(written[0])["skyloom product"] == "raw"
    again = create_store(tmp_path / "again", camera)
    assert {outcome.status for outcome in ingest_fits(again, tmp_path / "out")} == {"ingested"}
    one, two = store.records("ingest"), again.records("ingest")
    assert {key: r.fingerprint for key, r in one.items()} == {
        key: r.fingerprint for key, r in two.items()
    }


def test_amplifiers_a_detector_does_not_have_are_left_out(
    tmp_path: Path, camera: Camera, curve_schema: ProductSchema, make_curve: MakeCurve
) -> None:
    from skyloom.storage.camera import parse_camera

    single = (
        "amplifiers: [{name: C, data: {y: [0, 6], x: [0, 8]}, segment: {y: [0, 6], x: [0, 8]}}]"
    )
    text = camera.text.replace("id: 12,", f"id: 12, {single},")
    store = create_store(tmp_path / "store2", parse_camera(text, "odd.yaml"))
    store.prepare(curve_schema, {"detector": ["left", "right"], "pair": PAIRS}, sizes={"lag_y": 3})
    assert store.labels("curve")["amp"] == ["A", "B", "C"]
    for name, amps in (("left", "AB"), ("right", "C")):
        store.write_block("curve", {"detector": name}, make_curve(PAIRS, amps=list(amps)))
        store.write_record(Record("solve", {"detector": name}, "done"))
    main, pairs = export(store, "curve", tmp_path / "curve.ecsv")
    rows = Table.read(main)
    assert list(zip(rows["detector"], rows["amp"], strict=True)) == [
        ("left", "A"),
        ("left", "B"),
        ("right", "C"),
    ]
    assert len(Table.read(pairs)) == 6
    assert np.isfinite(rows["matrix"]).all()


def test_what_cannot_be_exported_is_told(curves: Store, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format must be one of ecsv, csv, parquet, fits"):
        export(curves, "curve", tmp_path / "curve.xls")
    with pytest.raises(ValueError, match="'curve' cannot be exported as 'reference'"):
        export(curves, "curve", tmp_path / "curve.fits", "reference")
    with pytest.raises(KeyError, match="no product 'ptc'; it has curve"):
        export(curves, "ptc", tmp_path / "ptc.ecsv")
    curves.forget("solve")
    with pytest.raises(StoreError, match=r"no block of 'curve' .* is done: run step 'solve' first"):
        export(curves, "curve", tmp_path / "curve.ecsv")


def test_files_are_only_replaced_when_allowed(curves: Store, tmp_path: Path) -> None:
    target = tmp_path / "curve.ecsv"
    export(curves, "curve", target)
    before = target.read_bytes()
    with pytest.raises(StoreError, match="exists: choose another name, or allow overwriting"):
        export(curves, "curve", target)
    assert export(curves, "curve", target, overwrite=True)[0] == target
    assert target.read_bytes() == before


@pytest.mark.parametrize("name", ["flat_pairs", "dark_pairs", "ptc", "brighter_fatter"])
def test_every_product_has_tables(store: Store, tmp_path: Path, name: str) -> None:
    schema = SCHEMAS[name]
    sizes = dict.fromkeys(schema.dims, 2)
    labels = {"pair": PAIRS, "detector": ["left"], "amp": ["A", "B"]}
    store.prepare(
        schema,
        {dim: found for dim, found in labels.items() if dim in schema.dims},
        sizes={dim: size for dim, size in sizes.items() if dim not in labels},
    )
    variables = {}
    for var in schema.variables:
        dims = [dim for dim in var.dims if dim not in schema.block]
        values = np.ones([sizes[dim] for dim in dims], var.dtype)
        variables[var.name] = (dims, values, {"units": var.unit})
    coords = {"amp": ["A", "B"], **({"pair": PAIRS} if name == "ptc" else {})}
    block = {dim: labels[dim][0] for dim in schema.block}
    store.write_block(name, block, xr.Dataset(variables, coords=coords))
    store.write_record(Record(name, block, "done"))
    tables = [Table.read(path) for path in export(store, name, tmp_path / f"{name}.fits")]
    assert len(tables) == (2 if name == "ptc" else 1)
    columns = {column for table in tables for column in table.colnames}
    assert {var.name for var in schema.variables} <= columns
    assert len(tables[0]) == 2


def test_raws_that_do_not_fit_the_camera_are_not_written(
    tmp_path: Path, make_camera: Callable[..., Camera], make_raws: MakeRaws
) -> None:
    camera = make_camera()
    with pytest.raises(ValueError, match="holds no detector"):
        write_raw_fits(tmp_path / "a.fits", camera, {})
    raws = {name: raw.isel(y=slice(3)) for name, raw in make_raws(1).items()}
    with pytest.raises(ValueError, match=r"has the shape \(6, 20\), its image \(3, 20\)"):
        write_raw_fits(tmp_path / "a.fits", camera, raws)
    with pytest.raises(ValueError, match="keeps one detector a file"):
        write_raw_fits(tmp_path / "a.fits", make_camera(file="detector"), make_raws(1))
    assert list(tmp_path.glob("*.fits")) == []
