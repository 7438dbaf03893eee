"""Export: what others read. Raw exposures as FITS images, products as tables.

Every file carries its provenance: product, schema version, step, versions and configuration.
Only blocks that are done are exported.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import pandas as pd
import xarray as xr
from astropy.io import fits
from astropy.table import Table

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import StoreError
from skyloom.storage.objects import medium_errors
from skyloom.storage.raw_fits import write_raw_fits
from skyloom.storage.records import plain
from skyloom.storage.store import Store
from skyloom.storage.tables import product_tables

__all__ = ["FORMATS", "export", "write_raw_fits"]

FORMATS: Final = ("ecsv", "csv", "parquet", "fits", "reference")
"""Formats of `export`; raw exposures go to ``fits`` only, ``reference`` takes a ``ptc``."""


def export(
    store: Store,
    product: str,
    path: str | os.PathLike[str],
    format: str | None = None,  # the word users know
    *,
    overwrite: bool = False,
) -> list[Path]:
    """Write a product in a format that others read.

    Parameters
    ----------
    store : Store
        Where the product lies.
    product : str
        Its name.
    path : path
        The file; for raw exposures, sky frames in FITS, and the reference's layout of several
        detectors, a directory with one file each.
    format : {"ecsv", "csv", "parquet", "fits", "reference"}, optional
        By default what the suffix of the path says; ``fits`` for raw exposures and for sky
        frames whose path has none.
    overwrite : bool
        Replace files that exist.

    Returns
    -------
    list of Path
        The files written. A product with values per amplifier and per pair gives two tables,
        the second with ``_pairs`` in its name.

    Raises
    ------
    KeyError
        If the store has no such product.
    ValueError
        If the format is unknown or not for this product.
    StoreError
        If nothing of the product is done, a file exists and is not to be replaced, or the
        medium refuses.
    """
    target = Path(path).expanduser()
    images = product == "raw" or (product == "sky_frame" and not target.suffix)
    chosen = format or ("fits" if images else target.suffix.removeprefix("."))
    if chosen not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {chosen!r}")
    if (product == "raw" and chosen != "fits") or (chosen == "reference" and product != "ptc"):
        raise ValueError(f"{product!r} cannot be exported as {chosen!r}")
    if not store.done(product).any():
        raise StoreError(
            f"no block of {product!r} in {store.url} is done: run step "
            f"{store.chunks(product).layout.step!r} first"
        )
    provenance = _provenance(store, product)
    with medium_errors(f"export to {target}"):
        if product == "raw":
            return list(_export_raw(store, target, provenance, overwrite))
        if product == "sky_frame" and chosen == "fits":
            return list(_export_sky_frames(store, target, provenance, overwrite))
        if chosen == "reference":
            return list(_export_reference(store, target, overwrite))
        return [
            _replace(_named(target, name), overwrite, _writer(chosen, table, provenance))
            for name, table in product_tables(store, product).items()
        ]


def _provenance(store: Store, product: str) -> dict[str, Any]:
    layout = store.chunks(product).layout
    records = [record for record in store.records(layout.step).values() if record.done]
    hashes = sorted({record.config_hash for record in records if record.config_hash})
    versions: dict[str, str] = {}
    for record in records:
        versions.update(record.versions)
    return {
        "product": product,
        "schema_version": layout.schema.version,
        "step": layout.step,
        "camera": store.camera.name,
        "skyloom": version("skyloom"),
        "blocks": len(records),
        "config_hash": ", ".join(hashes),
        **{f"version {name}": number for name, number in sorted(versions.items())},
        **{name: value for name, value in plain(layout.attrs).items() if value is not None},
    }


def _named(target: Path, name: str) -> Path:
    return target.with_name(f"{target.stem}_{name}{target.suffix}") if name else target


def _replace(target: Path, overwrite: bool, write: Callable[[Path], None]) -> Path:
    """Write a file beside its place, then put it there whole."""
    if target.exists() and not overwrite:
        raise StoreError(
            f"{target} exists: choose another name, or allow overwriting (--overwrite)"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{secrets.token_hex(6)}.{target.name}")
    try:
        write(partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def _writer(chosen: str, table: Table, provenance: Mapping[str, Any]) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        if chosen == "ecsv":
            table.meta.update(provenance)
            table.write(path, format="ascii.ecsv")
        elif chosen == "fits":
            hdu = _table_hdu(table, str(provenance["product"]).upper())
            _add_cards(hdu.header, provenance)
            fits.HDUList([fits.PrimaryHDU(), hdu]).writeto(path)
        elif chosen == "csv":
            text = json.dumps(provenance, indent=1)
            _flat(table).to_csv(path, index=False)
            # A comment in the table itself would break readers of plain CSV.
            final = path.name.split(".", 2)[2]
            path.with_name(f"{final}.provenance.json").write_text(text, encoding="utf-8")
        else:
            _write_parquet(_flat(table), provenance, path)

    return write


def _table_hdu(table: Table, name: str) -> fits.BinTableHDU:
    """Return a table HDU. Its comments hold all units; the FITS standard has no electron."""
    bare = table.copy(copy_data=False)
    for column in bare.colnames:
        bare[column].unit = None
    hdu = fits.BinTableHDU(bare, name=name)
    for number, column in enumerate(bare.colnames, 1):
        unit = table[column].unit
        text = table[column].description or column
        if unit is not None:
            hdu.header[f"TCOMM{number}"] = _ascii(f"{text} [{unit}]".replace(" / ", "/"))
            with contextlib.suppress(ValueError):
                hdu.header[f"TUNIT{number}"] = unit.to_string("fits")
        else:
            hdu.header[f"TCOMM{number}"] = _ascii(text)
    return hdu


def _write_parquet(frame: pd.DataFrame, provenance: Mapping[str, Any], path: Path) -> None:
    try:
        import pyarrow as pa  # noqa: F401  # optional
    except ImportError as error:
        raise StoreError(
            "Parquet needs the package pyarrow: pip install 'skyloom[parquet]', or export to "
            "ecsv or csv"
        ) from error
    frame.attrs.update(provenance)
    frame.to_parquet(path, engine="pyarrow", index=False)


def _flat(table: Table) -> pd.DataFrame:
    """Return a table whose matrix columns became one column an element."""
    columns: dict[str, Any] = {}
    for name in table.colnames:
        values = np.asarray(table[name])
        if values.ndim == 1:
            columns[name] = values
            continue
        for index in np.ndindex(values.shape[1:]):
            suffix = "_".join(map(str, index))
            columns[f"{name}_{suffix}"] = values[(slice(None), *index)]
    return pd.DataFrame(columns)


def _add_cards(header: fits.Header, provenance: Mapping[str, Any]) -> None:
    for name, value in provenance.items():
        text = value if isinstance(value, str | int | float | bool) else json.dumps(value)
        header[f"HIERARCH skyloom {name}"] = _ascii(text)


def _ascii(value: Any) -> Any:
    """Return text as FITS headers can hold it."""
    if isinstance(value, str):
        return value.encode("ascii", "replace").decode().replace("\n", " ")
    return value


def _export_raw(
    store: Store, target: Path, provenance: Mapping[str, Any], overwrite: bool
) -> Iterator[Path]:
    layout = store.chunks("raw").layout
    done = store.done("raw")
    single = store.camera.layout.file == "detector"
    for row, exposure in enumerate(layout.labels[v.EXPOSURE]):
        names = [str(layout.labels[v.DETECTOR][i]) for i in np.flatnonzero(done[row])]
        for group in [[name] for name in names] if single else filter(None, [names]):
            raws = {
                name: store.read_block("raw", {v.EXPOSURE: exposure, v.DETECTOR: name})
                for name in group
            }
            tail = f"_{_safe(group[0])}" if single else ""
            place = target / f"{exposure}{tail}.fits"
            yield _replace(place, overwrite, _raw_writer(store, raws, provenance))


def _raw_writer(
    store: Store, raws: Mapping[str, xr.Dataset], provenance: Mapping[str, Any]
) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        header = fits.Header()
        _add_cards(header, provenance)
        keys = {f"HIERARCH {card.keyword}": card.value for card in header.cards}
        write_raw_fits(path, store.camera, raws, keys)

    return write


def _export_sky_frames(
    store: Store, target: Path, provenance: Mapping[str, Any], overwrite: bool
) -> Iterator[Path]:
    """Write each sky frame as an exposure of bins, as other software keeps backgrounds."""
    from skyloom.storage.sky_frame_fits import write_sky_frame
    from skyloom.storage.sky_products import load_sky_frame

    labels = store.chunks("sky_frame").layout.labels
    for row, column in np.argwhere(store.done("sky_frame")):
        name, detector = str(labels[v.FILTER][row]), str(labels[v.DETECTOR][column])
        frame = load_sky_frame(store, name, detector)
        header = {"FILTER": name, "DETECTOR": detector}
        header |= {f"skyloom {key}": value for key, value in provenance.items()}
        place = target / f"{_safe(name)}_{_safe(detector)}.fits"
        yield write_sky_frame(place, frame, header=header, overwrite=overwrite)


def _export_reference(store: Store, target: Path, overwrite: bool) -> Iterator[Path]:
    from skyloom.storage.reference_table import write_reference_table

    layout = store.chunks("ptc").layout
    detectors = [
        str(name)
        for name, good in zip(layout.labels[v.DETECTOR], store.done("ptc"), strict=True)
        if good
    ]
    for name in detectors:
        ptc = store.read_block("ptc", {v.DETECTOR: name})
        # One detector is one file; several go into a directory.
        place = target if len(detectors) == 1 and target.suffix else target / f"{_safe(name)}.fits"

        def write(path: Path, ptc: xr.Dataset = ptc) -> None:
            write_reference_table(ptc, path)

        yield _replace(place, overwrite, write)


def _safe(name: str) -> str:
    """Return a label as part of a file name: nothing in it may lead elsewhere."""
    return "".join(letter if letter.isalnum() or letter in "_-+" else "_" for letter in name)
