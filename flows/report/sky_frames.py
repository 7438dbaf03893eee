"""The report of sky frames: frames, scales against time, residuals, worst detectors."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.mosaics import detector_places
from skyloom.flows.report.numbers import with_error
from skyloom.flows.report.sections import Image, drawn_image
from skyloom.flows.report.sky_figures import mosaic_figure, residual_figure, scale_figure
from skyloom.storage.sky_schemas import BINS

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["write_report"]

STEPS: Final = (
    "ingest",
    "detrended",
    "first_sky_bins",
    "first_focal_plane_sky",
    "first_sky_frame",
    "sky_bins",
    "focal_plane_sky",
    "sky_frame",
    "sky_fit",
    "sky_subtracted",
)
MOST_DETECTORS: Final = 30


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's sky frames, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``sky_frames`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    fits = _fits(store)
    sections = [
        Section(
            "frames",
            "Sky frames",
            "What the camera shows of an even sky, beside its smooth part: one mosaic a filter.",
            _mosaics(store),
        )
    ]
    if fits is not None:
        sections += [
            Section(
                "scales",
                "Scales",
                "The scale of the frame in each exposure should follow the level of its sky.",
                [
                    drawn_image(
                        scale_figure,
                        fits,
                        fits["mjd_start"].to_numpy(),
                        text="Scale of the sky frame against time",
                        caption="Errors are one standard deviation of the fit.",
                    )
                ],
                [_exposure_table(fits)],
            ),
            Section(
                "residuals",
                "Residuals",
                "Bins of all detectors about the fitted sky, with and without the sky frame.",
                [drawn_image(residual_figure, fits, text="Residuals before and after")],
                [_detector_table(fits)],
            ),
        ]
    return write_page(
        store,
        Path(path),
        kind="Sky frames",
        steps=STEPS,
        tiles=_tiles(store, fits),
        sections=sections,
    )


def _fits(store: Store) -> xr.Dataset | None:
    """Return the fits of the exposures that have one, with their start."""
    if "sky_fit" not in store:
        return None
    opened = store["sky_fit"]
    found = opened.isel({v.EXPOSURE: np.flatnonzero(store.done("sky_fit"))}).load()
    if not found.sizes[v.EXPOSURE]:
        return None
    table = store.exposures().sel({v.EXPOSURE: found[v.EXPOSURE].values})
    start = table["mjd_start"].values if "mjd_start" in table.coords else np.nan
    names = table[v.FILTER].values if v.FILTER in table.coords else ""
    size = found.sizes[v.EXPOSURE]
    return found.assign(
        mjd_start=(v.EXPOSURE, np.broadcast_to(start, size)),
        physical_filter=(v.EXPOSURE, np.broadcast_to(names, size)),
    )


def _mosaics(store: Store) -> list[Image]:
    if "sky_frame" not in store:
        return []
    done, frames = store.done("sky_frame"), store["sky_frame"]
    transforms, shapes = detector_places(store)
    images = []
    for row, physical_filter in enumerate(frames[v.FILTER].values):
        levels = {}
        for column, name in enumerate(map(str, frames[v.DETECTOR].values)):
            if done[row, column]:
                one = frames.isel({v.FILTER: row, v.DETECTOR: column}).load()
                rows, columns = (int(one[number]) for number in BINS)
                levels[name] = one["level"].to_numpy()[:rows, :columns].astype(np.float64)
        images.append(
            drawn_image(
                mosaic_figure,
                levels,
                transforms,
                shapes,
                "sky frame, relative to the sky",
                text=f"Sky frame through the filter {physical_filter or 'without name'}",
                caption=f"Filter {physical_filter or 'without name'}.",
            )
        )
    return images


def _tiles(store: Store, fits: xr.Dataset | None) -> list[tuple[str, str, str]]:
    frames = store.done("sky_frame") if "sky_frame" in store else np.zeros((0, 0), bool)
    tiles = [
        ("sky frames", str(int(frames.sum())), f"of {frames.size}, filters × detectors"),
        ("exposures fitted", "0" if fits is None else str(fits.sizes[v.EXPOSURE]), ""),
    ]
    if fits is not None:
        level = fits["level"].to_numpy()
        for name, text in (("rms_before", "smooth sky alone"), ("rms", "with sky frame")):
            share = 100 * np.nanmedian(fits[name].to_numpy() / level)
            tiles.append((f"rms, {text}", f"{share:.3f} %", "of sky, median"))
        odd = int((fits["status"].to_numpy() != v.ScaleStatus.OK).sum())
        tiles.append(("scales not to be trusted", str(odd), "by their status"))
    return tiles


def _exposure_table(fits: xr.Dataset) -> Table:
    rows = []
    for i, exposure in enumerate(fits[v.EXPOSURE].values):
        one = fits.isel({v.EXPOSURE: i})
        level = float(one["level"])
        rows.append(
            (
                str(int(exposure)),
                str(one[v.FILTER].values),
                f"{level:.1f}",
                with_error(float(one["scale"]), float(one["scale_sigma"])),
                f"{float(one['scale']) / level:.4f}",
                f"{100 * float(one['rms_before']) / level:.3f}",
                f"{100 * float(one['rms']) / level:.3f}",
                f"{int(one['rejected_count'])}",
                v.ScaleStatus(int(one["status"])).name,
            )
        )
    columns = (
        "exposure",
        "filter",
        "level (electron)",
        "scale (electron)",
        "scale / level",
        "rms before (%)",
        "rms after (%)",
        "bins rejected",
        "status",
    )
    return Table("Every exposure", columns, rows, (0, 2, 3, 4, 5, 6, 7))


def _detector_table(fits: xr.Dataset) -> Table:
    """Return the detectors with the largest residuals, the worst first."""
    share = (fits["residual_mean"] / fits["level"]).transpose(v.EXPOSURE, v.DETECTOR).to_numpy()
    pulls = fits["residual_pull"].transpose(v.EXPOSURE, v.DETECTOR).to_numpy()
    rows = []
    for column, name in enumerate(fits[v.DETECTOR].values):
        own = share[:, column][np.isfinite(share[:, column])]
        if own.size:
            pull = pulls[:, column]
            rms = float(np.sqrt(np.mean(own**2)))
            spread = float(np.sqrt(np.nanmean(pull**2)))
            rows.append((rms, (str(name), f"{100 * rms:.4f}", f"{spread:.2f}", str(own.size))))
    rows.sort(key=lambda row: -row[0])
    return Table(
        "Detectors, the worst first",
        ("detector", "rms of mean residuals (% of sky)", "in units of their errors", "exposures"),
        [cells for _, cells in rows[:MOST_DETECTORS]],
        (1, 2, 3),
    )
