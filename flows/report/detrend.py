"""The report of detrended exposures: what was applied, levels, masks, cosmic rays, detectors."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.frame_figures import cells_figure, masked_figure, trend_figure
from skyloom.flows.report.numbers import compact_ids, number
from skyloom.flows.report.overscans import QUANTITIES, Overscans, overscans, own_medians
from skyloom.flows.report.sections import drawn_image

if TYPE_CHECKING:
    from skyloom.storage.records import Record
    from skyloom.storage.store import Store

__all__ = ["write_report"]

STEPS: Final = ("ingest", "detrended")
MOST_DETECTORS: Final = 30
MILLION: Final = 1e6
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Frames:
    """What the records say of all frames: arrays over (exposure, detector), NaN without a frame."""

    exposures: list[int]
    detectors: list[str]
    records: dict[tuple[int, str], Record]
    table: xr.Dataset
    unit: str
    level: Floats
    masked: Floats
    rays: Floats
    planes: dict[str, Floats]

    def column(self, name: str) -> Floats:
        """Return a number of each exposure, NaN where it is unknown."""
        if name not in self.table.coords:
            return np.full(len(self.exposures), np.nan)
        return np.asarray(self.table[name].to_numpy(), np.float64)

    def text(self, name: str) -> list[str]:
        """Return a name of each exposure, "" where it is unknown."""
        if name not in self.table.coords:
            return [""] * len(self.exposures)
        return [str(value) for value in self.table[name].to_numpy()]

    @property
    def names(self) -> list[str]:
        """Exposures as text."""
        return [str(exposure) for exposure in self.exposures]

    @property
    def done(self) -> int:
        """Number of frames."""
        return sum(record.done for record in self.records.values())


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's detrended exposures, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``detrend`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    sections = [Section("applied", "What was applied", "No exposure was detrended.")]
    tiles = [("frames", "0", "")]
    if "detrended" in store:
        frames = _frames(store)
        scans = overscans(store, ("detrended",))
        sections = [
            _applied_section(frames),
            _level_section(frames),
            _mask_section(frames),
            _overscan_section(scans),
            Section(
                "detectors",
                "Detectors",
                "Levels are compared with the median detector of each exposure.",
                tables=[_detector_table(frames, scans)],
            ),
        ]
        tiles = _tiles(frames)
    return write_page(
        store, Path(path), kind="Detrended exposures", steps=STEPS, tiles=tiles, sections=sections
    )


def _frames(store: Store) -> Frames:
    labels = store.labels("detrended")
    detectors = [str(name) for name in labels[v.DETECTOR]]
    records = {
        (int(record.block[v.EXPOSURE]), str(record.block[v.DETECTOR])): record
        for record in store.records("detrended").values()
    }
    exposures = sorted({exposure for exposure, _ in records})
    table = store.exposures().sel({v.EXPOSURE: exposures})

    def cells(quantity: str, plane: str = "") -> Floats:
        found = np.full((len(exposures), len(detectors)), np.nan)
        for i, exposure in enumerate(exposures):
            for j, name in enumerate(detectors):
                record = records.get((exposure, name))
                if record is None or not record.done:
                    continue
                value = record.quality.get(quantity)
                if plane:
                    value = (value or {}).get(plane, 0.0)
                found[i, j] = np.nan if value is None else float(value)
        return found

    planes = {name: cells("masked", name) for name in v.MASK_PLANES}
    times = [name for name in ("dark_time", "exposure_time") if name in table.coords]
    dark = np.full(len(exposures), np.nan)
    for name in times:
        values = np.asarray(table[name].to_numpy(), np.float64)
        dark = np.where(np.isfinite(dark), dark, values)
    rays = MILLION * planes["COSMIC_RAY"] / np.where(dark > 0, dark, np.nan)[:, np.newaxis]
    return Frames(
        exposures,
        detectors,
        records,
        table.assign_coords(dark_time=(v.EXPOSURE, dark)),
        store.schema("detrended").variable("image").unit,
        cells("level"),
        cells("masked_fraction"),
        rays,
        planes,
    )


def _applied_section(frames: Frames) -> Section:
    applied: Counter[str] = Counter()
    by_text: dict[str, set[int]] = {}
    for (exposure, name), record in frames.records.items():
        for text in record.quality.get("applied", ()) if record.done else ():
            same = str(text).replace(f" of {name} ", " ")
            applied[same] += 1
            by_text.setdefault(same, set()).add(exposure)
    rows = []
    for text, count in applied.items():
        step, _, how = text.partition(": ")
        ids = compact_ids(sorted(by_text[text]))
        rows.append((step, how, f"{count} of {frames.done}", ids))
    return Section(
        "applied",
        "What was applied",
        "Steps in the order they were taken, each with its calibration.",
        tables=[
            Table("Steps", ("step", "how", "frames", "exposures"), rows, (2,)),
            _exposure_table(frames),
        ],
    )


def _exposure_table(frames: Frames) -> Table:
    time, filters, types = (
        frames.column("exposure_time"),
        frames.text(v.FILTER),
        frames.text("observation_type"),
    )
    level, masked, rays = (_medians(a) for a in (frames.level, frames.masked, frames.rays))
    saturated = _means(frames.planes["SAT"])
    rows = []
    for i, exposure in enumerate(frames.exposures):
        own = [frames.records.get((exposure, name)) for name in frames.detectors]
        lost = [
            f"{record.block[v.DETECTOR]} {record.status}: {record.reason}"
            for record in own
            if record is not None and not record.done
        ]
        done = sum(record is not None and record.done for record in own)
        steps = {
            str(text).partition(":")[0]
            for record in own
            if record is not None and record.done
            for text in record.quality.get("applied", ())
        }
        calibrations = [name for name in ("bias", "dark", "flat", "gain") if name in steps]
        rows.append(
            (
                str(exposure),
                types[i],
                filters[i],
                number(time[i]),
                f"{done} of {len(own)}",
                ", ".join(calibrations) or "none",
                number(level[i]),
                number(level[i] / time[i] if time[i] > 0 else np.nan),
                number(100 * masked[i], 3),
                number(100 * saturated[i], 3),
                number(rays[i], 3),
                "; ".join(lost),
            )
        )
    columns = (
        "exposure",
        "type",
        "filter",
        "exposure time (s)",
        "detectors",
        "calibrations",
        f"level ({frames.unit})",
        f"level ({frames.unit}/s)",
        "masked (%)",
        "saturated (%)",
        "cosmic rays (pixels / 10⁶ s)",
        "left out, and why",
    )
    return Table("Every exposure", columns, rows, (0, 3, 6, 7, 8, 9, 10))


def _medians(values: Floats) -> Floats:
    """Return the median over detectors of each exposure, NaN without any."""
    return own_medians(values.T)


def _means(values: Floats) -> Floats:
    count = np.isfinite(values).sum(axis=1)
    return np.where(count > 0, np.nansum(values, axis=1) / np.maximum(count, 1), np.nan)


def _relative_level(frames: Frames) -> Floats:
    """Return levels over the median detector of their exposure, less 1."""
    middle = _medians(frames.level)[:, np.newaxis]
    return np.asarray(frames.level / np.where(middle == 0, np.nan, middle) - 1)


def _level_section(frames: Frames) -> Section:
    start = frames.column("mjd_start")
    filters = [name or "no filter" for name in frames.text(v.FILTER)]
    return Section(
        "levels",
        "Levels",
        "The level of a frame is the median of its pixels that nothing masks.",
        [
            drawn_image(
                trend_figure,
                start,
                [(f"level\n({frames.unit})", frames.level)],
                filters,
                text="Levels against time",
                caption="A thin line for each detector; points are medians over all of them.",
            ),
            drawn_image(
                cells_figure,
                100 * _relative_level(frames).T,
                frames.detectors,
                frames.names,
                "level / median detector of the exposure − 1, %; grey: no frame",
                text="Levels of detectors beside each other",
            ),
        ],
    )


def _mask_section(frames: Frames) -> Section:
    planes = {name: _means(values) for name, values in frames.planes.items()}
    return Section(
        "masks",
        "Masks and cosmic rays",
        images=[
            drawn_image(
                masked_figure,
                planes,
                _medians(frames.rays),
                frames.column("dark_time"),
                frames.names,
                text="What masks cover, and cosmic rays",
                caption="Pixels that cosmic rays hit should grow with time: their rate is the same "
                "for all exposures.",
            ),
            drawn_image(
                partial(cells_figure, signed=False),
                100 * frames.masked.T,
                frames.detectors,
                frames.names,
                "pixels masked, %; grey: no frame",
                text="Masked pixels of every frame",
            ),
        ],
    )


def _overscan_section(scans: Overscans | None) -> Section:
    images = []
    if scans is not None:
        level, noise = (scans.values[name] for name in QUANTITIES)
        usual = own_medians(noise)
        panels = [
            ("overscan level less\nits median (adu)", level - own_medians(level)),
            (
                "noise of the overscan\n/ its median − 1 (%)",
                100 * (noise / np.where(usual > 0, usual, np.nan) - 1),
            ),
        ]
        images.append(
            drawn_image(
                trend_figure,
                scans.time,
                panels,
                scans.kinds,
                text="Overscans against time",
                caption="A thin line for each amplifier; points are medians over all of them.",
            )
        )
    return Section("overscans", "Overscans", images=images)


def _detector_table(frames: Frames, scans: Overscans | None) -> Table:
    relative = _relative_level(frames)
    noise: dict[str, list[float]] = {}
    drift: dict[str, list[float]] = {}
    if scans is not None:
        levels = scans.values["overscan_level"]
        for (name, amp), value in scans.medians("overscan_noise").items():
            noise.setdefault(name, []).append(value)
            own = levels[:, scans.channels.index((name, amp))]
            drift.setdefault(name, []).append(float(np.ptp(own[np.isfinite(own)])))
    rows = []
    for j, name in enumerate(frames.detectors):
        known = np.isfinite(relative[:, j])
        level = float(np.median(relative[known, j])) if known.any() else np.nan
        scatter = float(np.std(relative[known, j])) if known.any() else np.nan
        there = np.isfinite(frames.masked[:, j])
        masked = float(np.mean(frames.masked[there, j])) if there.any() else np.nan
        hit = np.isfinite(frames.rays[:, j])
        rays = float(np.median(frames.rays[hit, j])) if hit.any() else np.nan
        lost = sum(
            not record.done for (_, other), record in frames.records.items() if other == name
        )
        worst = (lost, np.nan_to_num(masked, nan=1.0) + abs(np.nan_to_num(level)))
        rows.append(
            (
                worst,
                (
                    name,
                    str(lost),
                    number(100 * masked, 3),
                    number(100 * level, 3),
                    number(100 * scatter, 3),
                    number(rays, 3),
                    number(max(noise.get(name, [np.nan])), 3),
                    number(max(drift.get(name, [np.nan])), 3),
                ),
            )
        )
    rows.sort(key=lambda row: (-row[0][0], -row[0][1]))
    columns = (
        "detector",
        "frames not made",
        "masked (%)",
        "level beside others (%)",
        "its scatter (%)",
        "cosmic rays (pixels / 10⁶ s)",
        "noise of the overscan (adu)",
        "its drift (adu)",
    )
    return Table(
        "Detectors, the worst first",
        columns,
        [cells for _, cells in rows[:MOST_DETECTORS]],
        tuple(range(1, 8)),
    )


def _tiles(frames: Frames) -> list[tuple[str, str, str]]:
    every = len(frames.records)
    tiles = [
        ("frames", str(frames.done), f"of {every}, exposures × detectors"),
        ("exposures", str(len(frames.exposures)), f"of {len(frames.detectors)} detectors"),
    ]
    for values, scale, name, unit in (
        (frames.level, 1.0, "level", f"{frames.unit}, median"),
        (frames.masked, 100.0, "masked", "% of pixels, median"),
        (frames.rays, 1.0, "cosmic rays", "pixels / 10⁶ s, median"),
    ):
        finite = values[np.isfinite(values)]
        if finite.size:
            tiles.append((name, number(scale * float(np.median(finite)), 3), unit))
    return tiles
