"""The report of warps: which visits cover which patches, their levels and noise."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.flows.patches import patch_label
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.numbers import compact_ids, number
from skyloom.flows.report.sections import drawn_image
from skyloom.flows.report.tract_figures import coverage_figure, levels_figure
from skyloom.flows.report.tracts import (
    MOST_TRACTS,
    detector_outlines,
    extent_of,
    patches_of,
    tract_named,
)

if TYPE_CHECKING:
    from skyloom.storage.records import Record
    from skyloom.storage.store import Store

__all__ = ["coverage_section", "warp_records", "write_report"]

STEPS: Final = ("ingest", "detrended", "sky_subtracted", "psf", "warps", "warp_psf")
MOST_OUTLINES = 40  # visits whose detectors are drawn
Cells = dict[tuple[int, str], "Record"]


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's warps, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``warps`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    cells = warp_records(store)
    unit = store.schema("warps").variable("image").unit if "warps" in store else ""
    sections = []
    for tract, patches in list(patches_of({patch for _, patch in cells}).items())[:MOST_TRACTS]:
        section = coverage_section(store, cells, tract, patches)
        visits = sorted({visit for visit, patch in cells if patch.startswith(f"{tract}-")})
        names = [patch_label(tract, patch) for patch in patches]
        levels, noise = (_matrix(cells, visits, names, key) for key in ("median", "noise"))
        figure = drawn_image(
            levels_figure, list(map(str, visits)), levels, noise, unit,
            text=f"Levels and noise of the warps of tract {tract}",
        )  # fmt: skip
        tables = [*section.tables, _visit_table(store, cells, visits, names, unit)]
        sections.append(
            Section(section.anchor, section.title, section.text, [*section.images, figure], tables)
        )
    return write_page(
        store,
        Path(path),
        kind="Warps",
        steps=STEPS,
        tiles=_tiles(cells),
        sections=sections,
        product="warps",
    )


def warp_records(store: Store) -> Cells:
    """Return the records of the warps that were made, by visit and patch."""
    return {
        (int(record.block[v.VISIT]), str(record.block[v.PATCH])): record
        for record in store.records("warps").values()
        if record.done
    }


def coverage_section(
    store: Store, cells: Cells, tract: int, patches: list[int], anchor: str = "coverage"
) -> Section:
    """Return a section of a tract: a map of its patches, and a table of them."""
    place = tract_named(store, "warps", tract)
    visits = sorted({visit for visit, patch in cells if patch.startswith(f"{tract}-")})
    counts, rows = [], []
    for patch in patches:
        name = patch_label(tract, patch)
        covered = {visit: _covered(cells.get((visit, name))) for visit in visits}
        seen = [visit for visit, share in covered.items() if share > 0]
        counts.append(len(seen))
        total = sum(covered.values())
        rows.append((name, str(len(seen)), number(total, 3), compact_ids(seen)))
    outlines = detector_outlines(store, place, visits[:MOST_OUTLINES])
    boxes = [extent_of(place.patch(patch).inner) for patch in patches]
    height, width = place.shape
    text = (
        f"{height} × {width} pixels of {place.pixel_scale:g} arcsec around right ascension "
        f"{place.right_ascension:.5f}, declination {place.declination:+.5f} degree; "
        f"{len(patches)} of {place.patch_count} patches have warps, of {len(visits)} visits."
    )
    if len(visits) > MOST_OUTLINES:
        text += f" The detectors of the first {MOST_OUTLINES} visits are drawn."
    return Section(
        f"{anchor}-{tract}",
        f"Tract {tract}",
        text,
        [
            drawn_image(
                coverage_figure, boxes, counts, outlines, place.shape,
                text=f"Patches of tract {tract} and the detectors that cover them",
                caption="East is to the left, north up, unless the sky map is rotated.",
            )
        ],
        [
            Table(
                "Patches",
                ("patch", "visits with data", "coverage (visits × fraction)", "which"),
                rows,
                (1, 2),
            )
        ],
    )  # fmt: skip


def _covered(record: Record | None) -> float:
    return float(record.quality.get("covered") or 0.0) if record is not None else 0.0


def _matrix(cells: Cells, visits: list[int], patches: list[str], key: str) -> NDArray[np.float64]:
    values = np.full((len(visits), len(patches)), np.nan)
    for row, visit in enumerate(visits):
        for column, patch in enumerate(patches):
            record = cells.get((visit, patch))
            value = record.quality.get(key) if record is not None else None
            if value is not None:
                values[row, column] = value
    return values


def _visit_table(
    store: Store, cells: Cells, visits: list[int], patches: list[str], unit: str
) -> Table:
    psfs: Cells = {
        (int(record.block[v.VISIT]), str(record.block[v.PATCH])): record
        for record in store.records("warp_psf").values()
        if record.done
    }
    widths = _matrix(psfs, visits, patches, "fwhm")
    parts = {key: _matrix(cells, visits, patches, key) for key in ("covered", "median", "noise")}
    rows = []
    for row, visit in enumerate(visits):
        covered = parts["covered"][row]
        seen = int((covered > 0).sum())
        empty = [patch for patch, share in zip(patches, covered, strict=True) if share == 0]
        medians, noises = (
            parts[key][row][np.isfinite(parts[key][row])] for key in ("median", "noise")
        )
        rows.append(
            (
                str(visit),
                str(seen),
                number(float(np.nansum(covered)), 3),
                number(float(np.median(medians)) if medians.size else np.nan),
                number(float(np.ptp(medians)) if medians.size else np.nan, 3),
                number(float(np.median(noises)) if noises.size else np.nan, 3),
                number(_middle(widths[row]), 3),
                ", ".join(empty),
            )
        )
    columns = (
        "visit",
        "patches with data",
        "patches covered",
        f"median level ({unit})",
        f"its range over patches ({unit})",
        f"noise of a pixel ({unit})",
        "FWHM of stars (pixel)",
        "touched, without data",
    )
    return Table("Visits", columns, rows, tuple(range(7)), "There are no warps.")


def _middle(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")


def _tiles(cells: Cells) -> list[tuple[str, str, str]]:
    visits, patches = ({key[axis] for key in cells} for axis in (0, 1))
    empty = sum(_covered(record) == 0 for record in cells.values())
    tracts = {str(patch).split("-")[0] for patch in patches}
    return [
        ("warps", str(len(cells)), "visits × patches that touch"),
        ("visits", str(len(visits)), ""),
        ("patches", str(len(patches)), f"of {len(tracts)} tracts"),
        ("warps without data", str(empty), "named in the tables"),
    ]
