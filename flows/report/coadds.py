"""The report of coadds: images and numbers of visits, seams, depth, what each visit gives."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.flows.patches import patch_label
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.numbers import number
from skyloom.flows.report.sections import drawn_image
from skyloom.flows.report.tract_figures import BinnedPatch, mosaic_figure, seam_figure
from skyloom.flows.report.tracts import (
    MOST_TRACTS,
    Seams,
    bin_side,
    binned_patch,
    patches_of,
    scatter,
    seams_of,
    steps_of,
    tract_named,
)

if TYPE_CHECKING:
    from skyloom.storage.records import Record
    from skyloom.storage.store import Store

__all__ = ["write_report"]

STEPS: Final = (
    "ingest",
    "warps",
    "warp_psf",
    "background_match",
    "matched_warps",
    "coadd",
)
Floats = NDArray[np.float64]
Records = dict[tuple[str, str], "Record"]


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's coadds, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``coadds`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    records: Records = {
        (str(record.block[v.FILTER]), str(record.block[v.PATCH])): record
        for record in store.records("coadd").values()
        if record.done
    }
    sections: list[Section] = []
    for physical_filter in sorted({name for name, _ in records}):
        names = {patch for name, patch in records if name == physical_filter}
        for tract, patches in list(patches_of(names).items())[:MOST_TRACTS]:
            anchor = f"coadd-{len(sections)}"
            sections.append(_section(store, records, physical_filter, tract, patches, anchor))
    return write_page(
        store,
        Path(path),
        kind="Coadds",
        steps=STEPS,
        tiles=_tiles(records),
        sections=sections,
        product="coadd",
    )


def _section(
    store: Store,
    records: Records,
    physical_filter: str,
    tract: int,
    patches: list[int],
    anchor: str,
) -> Section:
    place = tract_named(store, "coadd", tract)
    unit = store.schema("coadd").variable("image").unit
    coadds = {
        patch: store.read_block(
            "coadd", {v.FILTER: physical_filter, v.PATCH: patch_label(tract, patch)}, lazy=True
        )
        for patch in patches
    }
    side = bin_side(place)
    binned = [binned_patch(coadds[patch], place.patch(patch), side) for patch in patches]
    steps = [steps_of(one) for one in binned]
    edges, inner = (np.concatenate(part) for part in zip(*steps, strict=True))
    seams = seams_of(coadds, place)
    pulls = np.concatenate([seam.pulls for seam in seams]) if seams else np.empty(0)
    name = f"{physical_filter or 'without name'}, tract {tract}"
    matched = "background_match" in store
    text = f"Shown in bins of {side} × {side} pixels. "
    text += (
        "Offsets of `match_backgrounds` were added to the warps where it was run before."
        if matched
        else "Backgrounds of visits are not matched."
    )
    return Section(
        anchor,
        f"Filter {name}",
        text,
        [
            drawn_image(
                mosaic_figure, binned, place.shape, unit, text=f"Coadd through {name}, and visits"
            ),
            drawn_image(
                seam_figure, pulls, edges, inner, text=f"Seams of the coadd through {name}",
                caption="Left: the same pixels in two patches, which differ by the weights of "
                "visits and by clipping only. Right: bins two apart, over the noise of pixels; "
                "steps where visits or detectors begin and end should scatter as the others do.",
            ),
        ],
        [
            _step_table(edges, inner),
            _seam_table(seams, unit),
            _patch_table(records, physical_filter, tract, patches, binned, unit),
            _input_table(coadds),
        ],
    )  # fmt: skip


def _step_table(edges: Floats, inner: Floats) -> Table:
    rows = [
        (text, str(values.size), number(scatter(values), 3), number(_median(values), 2))
        for text, values in (("visits begin or end between them", edges),
                             ("the same visits", inner))
    ]  # fmt: skip
    return Table(
        "Steps between bins",
        ("bins", "steps", "scatter over noise", "median over noise"),
        rows,
        (1, 2, 3),
    )


def _median(values: Floats) -> float:
    return float(np.median(values)) if values.size else float("nan")


def _seam_table(seams: list[Seams], unit: str) -> Table:
    rows = [
        (
            seam.first,
            seam.second,
            str(seam.pixels),
            number(seam.median, 2),
            number(seam.rms, 2),
            number(seam.largest, 3),
        )
        for seam in sorted(seams, key=lambda seam: -np.nan_to_num(seam.rms))
    ]
    columns = (
        "patch",
        "neighbour",
        "pixels of both",
        f"median difference ({unit})",
        "rms over noise",
        "largest over noise",
    )
    return Table(
        "Neighbouring patches, the worst first", columns, rows, (2, 3, 4, 5), "No patches overlap."
    )


def _patch_table(
    records: Records,
    physical_filter: str,
    tract: int,
    patches: list[int],
    binned: list[BinnedPatch],
    unit: str,
) -> Table:
    rows = []
    for patch, one in zip(patches, binned, strict=True):
        name = patch_label(tract, patch)
        quality = records[physical_filter, name].quality
        count = one.values["n_image"]
        rows.append(
            (
                name,
                str(quality.get("visits", "")),
                f"{count.min():.1f} / {np.median(count):.1f} / {count.max():.1f}",
                number(100 * float(quality.get("covered") or 0.0), 3),
                number(float(quality.get("noise") or np.nan), 3),
                number(100 * float(quality.get("clipped") or 0.0), 2),
                str(quality.get("artifacts", "")),
                number(float(quality.get("fwhm") or np.nan), 3),
            )
        )
    columns = (
        "patch",
        "visits",
        "per bin: fewest / median / most",
        "covered (%)",
        f"noise of a pixel ({unit})",
        "CLIPPED (%)",
        "artifacts",
        "FWHM of stars (pixel)",
    )
    return Table("Patches", columns, rows, (1, 2, 3, 4, 5, 6, 7))


def _input_table(coadds: dict[int, xr.Dataset]) -> Table:
    """Return what each visit gives to the coadds, and why not."""
    share: dict[int, list[float]] = {}
    good: dict[int, int] = {}
    left: dict[int, list[str]] = {}
    artifacts: dict[int, list[int]] = {}
    names = ["input_weight", "input_status", "input_good_count", "artifact_count"]
    names += ["artifact_pixels"]
    for patch, coadd in coadds.items():
        table = coadd[names].load()
        weight = np.nan_to_num(table["input_weight"].to_numpy())
        total = weight.sum()
        codes, counts = (table[name].to_numpy() for name in ("input_status", "input_good_count"))
        for row, visit in enumerate(map(int, table[v.VISIT].to_numpy())):
            if int(codes[row]) == 255:
                continue
            own = artifacts.setdefault(visit, [0, 0])
            for place, name in enumerate(names[-2:]):
                own[place] += int(table[name].to_numpy()[row])
            if weight[row] > 0:
                share.setdefault(visit, []).append(float(weight[row] / total))
                good[visit] = good.get(visit, 0) + int(counts[row])
            else:
                reason = v.InputStatus(int(codes[row])).name
                left.setdefault(visit, []).append(f"{patch}: {reason}")
    rows = []
    for visit in sorted({*share, *left}):
        parts = share.get(visit, [])
        rows.append(
            (
                str(visit),
                str(len(parts)),
                str(good.get(visit, 0)),
                number(100 * float(np.mean(parts)) if parts else 0.0, 3),
                *map(str, artifacts.get(visit, (0, 0))),
                ", ".join(left.get(visit, [])),
            )
        )
    columns = (
        "visit",
        "patches",
        "good pixels",
        "mean share of the weight (%)",
        "artifacts",
        "their pixels",
        "left out of patch",
    )
    return Table("Visits", columns, rows, (0, 1, 2, 3, 4, 5))


def _tiles(records: Records) -> list[tuple[str, str, str]]:
    filters, patches = ({key[axis] for key in records} for axis in (0, 1))
    visits = [int(record.quality.get("visits") or 0) for record in records.values()]
    tiles = [
        ("coadds", str(len(records)), f"{len(filters)} filters, {len(patches)} patches"),
        ("visits in a coadd", str(int(np.median(visits))) if visits else "–",
         f"median; most {max(visits, default=0)}"),
    ]  # fmt: skip
    clipped = [float(record.quality.get("clipped") or 0.0) for record in records.values()]
    if clipped:
        tiles.append(("CLIPPED", f"{100 * float(np.mean(clipped)):.2g} %", "of pixels"))
    found = [int(record.quality.get("artifacts") or 0) for record in records.values()]
    if sum(found):
        tiles.append(("artifacts", str(sum(found)), "rejected"))
    widths = [float(record.quality.get("fwhm") or np.nan) for record in records.values()]
    if np.isfinite(widths).any():
        tiles.append(("FWHM of stars", f"{np.nanmedian(widths):.3g} pixel", "median of patches"))
    return tiles
