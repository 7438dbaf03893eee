"""The report of chromatic coadds: displacements, agreement, colours, visits held out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr.geometry_check import SURE
from skyloom.flows.report.dcr_figures import (
    agreement_figure,
    colour_figure,
    held_out_figure,
    shift_figure,
)
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.numbers import NOTHING, number
from skyloom.flows.report.sections import Image, drawn_image

if TYPE_CHECKING:
    from skyloom.storage.records import Record
    from skyloom.storage.store import Store

__all__ = ["write_report"]

STEPS: Final = ("ingest", "warps", "warp_psf", "background_match", "coadd", "dcr", "dcr_coadd",
                "dcr_scores")  # fmt: skip
MOST_PATCHES: Final = 6
"""Patches of a filter that get images; tables tell of all."""
MOST_ROWS: Final = 400
"""Rows of visits that are shown."""
_SOLVED: Final = {
    "linear": "solved for by weighted least squares",
    "iterative": "iterated to, for comparison (dcr.solver=linear fits the visits far better)",
}
_FLAG = v.ConditionFlag
_CONDITIONS: Final = (
    (
        _FLAG.TEMPERATURE_DEFAULTED | _FLAG.PRESSURE_DEFAULTED | _FLAG.HUMIDITY_DEFAULTED,
        "usual weather",
    ),
    (_FLAG.ALTITUDE_INCONSISTENT | _FLAG.HOUR_ANGLE_INCONSISTENT, "headers contradict the time"),
)
_GEOMETRY: Final = ("geometry_angle", "geometry_angle_error", "geometry_mirrored",
                    "geometry_contrast")  # fmt: skip
POORLY_KNOWN: Final = 0.05
"""Error of the first spectral moment from which a geometry is called degenerate."""


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's chromatic coadds, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``dcr_coadds`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    records = {
        (str(record.block[v.FILTER]), str(record.block[v.PATCH])): record
        for record in store.records("dcr").values()
        if record.done
    }
    sections = [
        _section(store, records, name) for name in sorted({filter_ for filter_, _ in records})
    ]
    return write_page(
        store,
        Path(path),
        kind="Chromatic coadds",
        steps=STEPS,
        tiles=_tiles(store, records),
        sections=sections,
        product="dcr",
    )


def _section(store: Store, records: dict[tuple[str, str], Record], name: str) -> Section:
    patches = sorted((patch for filter_, patch in records if filter_ == name), key=_order)
    models = {
        patch: store.read_block("dcr", {v.FILTER: name, v.PATCH: patch}, lazy=True)
        for patch in patches
    }
    images: list[Image] = []
    for patch in patches[:MOST_PATCHES]:
        table = models[patch][["dispersion_y", "dispersion_x", "chi2", "airmass", "used"]].load()
        table = _known(table)
        visits = [str(visit) for visit in table[v.VISIT].values]
        vectors = np.stack([table[f"dispersion_{axis}"].values for axis in "yx"], axis=1)
        used = table["used"].values.astype(bool)
        images += [
            drawn_image(
                shift_figure, visits, vectors, used, text=f"Displacements of visits, {patch}",
                caption=f"Patch {patch}: how far the atmosphere moves the blue end of the band "
                "from its red end, towards the zenith. Colours are known from what differs.",
            ),
            drawn_image(
                agreement_figure, visits, table["chi2"].values, table["airmass"].values, used,
                text=f"Agreement of visits with the model, {patch}",
            ),
        ]  # fmt: skip
    shown = [_planes(patch, models[patch]) for patch in patches[:MOST_PATCHES]]
    images.append(
        drawn_image(
            colour_figure, shown, text=f"Sub-bands through {name} in colours",
            caption="Differences of sub-bands are shown three times as large.",
        )
    )  # fmt: skip
    scores = _scores(store, name)
    if scores is not None:
        images.append(_held_out(scores))
    edges = models[patches[0]]["wavelength_edges"].values
    limits = ", ".join(f"{low:.0f} to {high:.0f}" for low, high in edges)
    return Section(
        f"dcr-{name}",
        f"Filter {name or 'without name'}",
        f"Sub-bands: {limits} nm, {_SOLVED[_solver(store)]}. " + _advice(records, name),
        images,
        [
            _patch_table(models),
            _visit_table(models),
            *([] if scores is None else [_score_table(scores)]),
        ],
    )


def _solver(store: Store) -> str:
    return str(store.attrs("dcr").get("dcr", {}).get("solver", "linear"))


def _known(table: xr.Dataset) -> xr.Dataset:
    """Return the visits that a patch has, in the order of their numbers."""
    found = table.isel({v.VISIT: np.isfinite(table["airmass"].values)})
    return found.isel({v.VISIT: np.argsort(found[v.VISIT].values)})


def _order(label: str) -> tuple[int, ...]:
    return tuple(map(int, label.split("-")))


def _planes(
    patch: str, model: xr.Dataset
) -> tuple[
    str,
    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    np.ndarray[tuple[int, ...], np.dtype[np.float64]],
]:
    planes = model["model"].transpose(v.SUBFILTER, v.Y, v.X).values.astype(np.float64)
    variance = model["variance"].transpose(v.SUBFILTER, v.Y, v.X).values.astype(np.float64)
    variance = np.where(np.isfinite(variance), variance, np.nan)
    return patch, planes, np.sqrt(np.nan_to_num(np.nanmedian(variance, axis=(1, 2))))


def _advice(records: dict[tuple[str, str], Record], name: str) -> str:
    """Return which patches hardly know colours, and what helps."""
    errors = {
        patch: record.quality.get("colour_error")
        for (filter_, patch), record in records.items()
        if filter_ == name
    }
    poor = [patch for patch, error in errors.items() if error is None or error > POORLY_KNOWN]
    if not poor:
        return "The visits of all patches differ enough in refraction to tell colours."
    return (
        f"In {len(poor)} of {len(errors)} patches ({', '.join(sorted(poor, key=_order)[:8])}) the "
        "visits hardly differ in refraction: the first spectral moment of a star of S/N 100 would "
        f"be wrong by more than {POORLY_KNOWN:g} of the band. There templates hold near the "
        "airmass and angle of the visits only, and colours are those of the prior. Visits at other "
        "angles help, fewer sub-bands do not: stars are drawn out all the same."
    )


def _patch_table(models: dict[str, xr.Dataset]) -> Table:
    rows = []
    names = ("status", "iterations", "residual", "convergence_first", "convergence_last",
             "chi2_total", "spread", "colour_error", "condition_number")  # fmt: skip
    for patch, model in models.items():
        table = model[[*names, *_GEOMETRY, "used"]].load()
        rows.append(
            (
                patch,
                v.DcrStatus(int(table["status"])).name,
                str(int(table["used"].sum())),
                str(int(table["iterations"])),
                *(number(float(table[name]), 3) for name in names[2:-1]),
                "∞" if np.isposinf(table[names[-1]]) else number(float(table[names[-1]]), 3),
                _geometry(table),
            )
        )
    columns = (
        "patch",
        "how it ended",
        "visits",
        "iterations",
        "residual",
        "convergence, first",
        "last",
        "chi² per pixel",
        "scatter of displacements (pixel²)",
        "error of a star's colour",
        "condition number",
        "displacements seen",
    )
    return _filled(Table("Patches", columns, rows, tuple(range(2, len(columns) - 1))))


def _geometry(patch: xr.Dataset) -> str:
    """Return how displacements that visits show differ from those of their geometry."""
    angle, error, mirrored, contrast = (float(patch[name]) for name in _GEOMETRY)
    if not np.isfinite(contrast):
        return NOTHING
    if contrast <= SURE:
        return "not told by these objects"
    turned = f"turned by {number(angle, 2)} ± {number(error, 1)}°"
    return f"mirrored, {turned}" if mirrored else turned


def _filled(table: Table) -> Table:
    """Return a table without columns that tell nothing: each solver has figures of its own."""
    kept = [
        column
        for column in range(len(table.columns))
        if not table.rows or any(row[column] not in ("", NOTHING) for row in table.rows)
    ]
    numeric = [new for new, old in enumerate(kept) if old in table.numeric]
    return Table(
        table.title,
        tuple(table.columns[column] for column in kept),
        [tuple(row[column] for column in kept) for row in table.rows],
        tuple(numeric),
    )


def _visit_table(models: dict[str, xr.Dataset]) -> Table:
    rows = []
    for patch, model in models.items():
        names = (
            "chi2",
            "altitude",
            "airmass",
            "parallactic_angle",
            "psf_fwhm",
            "used",
            "pixel_count",
            "rejected",
            "rejected_fraction",
            "varying",
            "flux_scale",
            "offset_y",
            "offset_x",
            "condition_flags",
        )
        table = _known(model[list(names)].load())
        for index in range(table.sizes[v.VISIT]):
            one = table.isel({v.VISIT: index})
            rows.append(
                (
                    str(int(one[v.VISIT])),
                    patch,
                    number(float(one["chi2"]), 3),
                    number(float(one["altitude"]), 4),
                    number(float(one["airmass"]), 4),
                    number(float(one["parallactic_angle"]), 4),
                    number(float(one["psf_fwhm"]), 3),
                    str(int(one["pixel_count"])),
                    str(int(one["rejected"])),
                    f"{100.0 * float(one['rejected_fraction']):.1f}",
                    f"{float(one['flux_scale']):.3f}",
                    _remark(one),
                )
            )
    columns = (
        "visit",
        "patch",
        "chi² per pixel",
        "altitude (deg)",
        "airmass",
        "parallactic angle (deg)",
        "FWHM (pixel)",
        "pixels",
        "rejected",
        "of objects (%)",
        "flux over that of others",
        "",
    )
    cut = len(rows) > MOST_ROWS
    title = f"Visits (the first {MOST_ROWS} of {len(rows)} rows)" if cut else "Visits"
    return Table(title, columns, rows[:MOST_ROWS], (0, 2, 3, 4, 5, 6, 7, 8, 9, 10))


def _remark(visit: xr.Dataset) -> str:
    """Return what is special about a visit."""
    dy, dx = float(visit["offset_y"]), float(visit["offset_x"])
    moved = f"fitted at an offset of {number(dy, 2)}, {number(dx, 2)} pixel (y, x)"
    said = [] if bool(visit["used"]) else ["left out"]
    if dy or dx:
        said.append(moved)
    flags = int(visit["condition_flags"])
    said += [text for bits, text in _CONDITIONS if flags & int(bits)]
    varying = int(visit["varying"])
    if varying:
        said.append(f"{varying} object{'s' if varying > 1 else ''} not as in other visits")
    return ", ".join(said)


def _scores(store: Store, name: str) -> xr.Dataset | None:
    """Return the scores of held-out visits through a filter, one row per visit and patch."""
    if "dcr_scores" not in store:
        return None
    done = np.asarray(store.done("dcr_scores"), bool)
    table = store["dcr_scores"].load()
    rows, columns = np.nonzero(done)
    place = {v.VISIT: xr.DataArray(rows, dims="row"), v.PATCH: xr.DataArray(columns, dims="row")}
    found = table.isel(place)
    if v.FILTER in found.variables:
        found = found.isel(row=np.flatnonzero(found[v.FILTER].values.astype(str) == name))
    return found if found.sizes["row"] else None


def _held_out(scores: xr.Dataset) -> Image:
    visits = np.unique(scores[v.VISIT].values)
    residual, dipole = np.full((2, visits.size, 2), np.nan)
    for index, visit in enumerate(visits):
        own = scores.isel(row=np.flatnonzero(scores[v.VISIT].values == visit))
        weight = own["pixels"].values.astype(float)
        for column, of in enumerate(("template", "coadd")):
            squares = own[f"residual_{of}"].values ** 2 * weight
            residual[index, column] = np.sqrt(np.nansum(squares) / max(weight.sum(), 1.0))
            dipole[index, column] = np.sqrt(np.nanmean(own[f"dipole_{of}"].values ** 2))
    return drawn_image(
        held_out_figure,
        [str(visit) for visit in visits],
        residual,
        dipole,
        str(scores["residual_template"].attrs.get("units", "")),
        text="Templates against visits that were held out",
        caption="What is left near objects without the noise that variances promise, and the "
        "dipoles that colours leave along the vertical, for templates and for the plain coadd. "
        "All have one seeing: that of the visit, or that of the coadd if it is worse.",
    )


def _score_table(scores: xr.Dataset) -> Table:
    rows = []
    for index in range(scores.sizes["row"]):
        one = scores.isel(row=index)
        dipoles = [float(one[f"dipole_{of}"]) for of in ("template", "coadd")]
        energy = (dipoles[0] / dipoles[1]) ** 2 if dipoles[1] > 0 else np.nan
        rows.append(
            (
                str(one[v.VISIT].item()),
                str(one[v.PATCH].item()),
                number(float(one["altitude"]), 4),
                number(float(one["parallactic_angle"]), 4),
                number(float(one["compared_fwhm"]), 3),
                number(float(one["residual_template"]), 3),
                number(float(one["residual_coadd"]), 3),
                number(float(one["ratio"]), 2),
                number(energy, 2),
                str(int(one["detections_template"])),
                str(int(one["detections_coadd"])),
            )
        )
    columns = (
        "visit",
        "patch",
        "altitude (deg)",
        "parallactic angle (deg)",
        "seeing compared at (pixel)",
        "residual of the template",
        "of the plain coadd",
        "ratio",
        "dipole energy over that of the coadd",
        "detections left by the template",
        "by the plain coadd",
    )
    return Table("Visits that were held out", columns, rows, tuple(range(2, 11)))


def _tiles(store: Store, records: dict[tuple[str, str], Record]) -> list[tuple[str, str, str]]:
    qualities = [record.quality for record in records.values()]
    chi2 = [float(q["chi2"]) for q in qualities if q.get("chi2") is not None]
    visits = [int(q.get("visits") or 0) for q in qualities]
    tiles = [
        ("models", str(len(records)), f"{len({name for name, _ in records})} filters"),
        ("visits in a model", str(int(np.median(visits))) if visits else "–", "median"),
    ]
    if chi2:
        tiles.append(("chi²", f"{float(np.median(chi2)):.2f}", "per pixel of objects, median"))
    ratios = [
        float(record.quality["ratio"])
        for record in store.records("dcr_scores").values()
        if record.done and record.quality.get("ratio") is not None
    ] if "dcr_scores" in store else []  # fmt: skip
    if ratios:
        tiles.append(
            ("templates", f"{float(np.median(ratios)):.2f}", "residual over that of the coadd")
        )
    return tiles
