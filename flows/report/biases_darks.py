"""The report of biases and darks: mosaics, amplifiers, overscans against time, inputs."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.amplifiers import amplifier_rows
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.frame_figures import amplifier_figure, trend_figure
from skyloom.flows.report.mosaics import BIN, bin_means, detector_places, each_detector
from skyloom.flows.report.numbers import number
from skyloom.flows.report.overscans import QUANTITIES, Overscans, overscans, own_medians
from skyloom.flows.report.sections import Image, drawn_image
from skyloom.flows.report.sky_figures import mosaic_figure

if TYPE_CHECKING:
    from skyloom.storage.store import Store

__all__ = ["write_report"]

STEPS: Final = ("ingest", "bias_frames", "bias", "dark_frames", "dark")
MOST_PIXELS: Final = 10**9
"""Calibrations of larger cameras are not read again to be shown."""
HOT: Final = 6.0  # robust standard deviations above the median of the amplifier
MOST_ROWS: Final = 100
Floats = NDArray[np.float64]
Channel = tuple[str, str]


@dataclass
class Calibrations:
    """What the pixels of a combined product say: images in bins, figures of each amplifier."""

    product: str
    unit: str
    levels: dict[str, Floats] = field(default_factory=dict)
    errors: dict[str, Floats] = field(default_factory=dict)
    amplifiers: dict[Channel, dict[str, float]] = field(default_factory=dict)
    note: str = ""


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's biases and darks, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``biases_darks`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    found = [
        _calibrations(store, product, unit)
        for product, unit in (("bias", v.ADU), ("dark", v.ADU_PER_SECOND))
        if product in store
    ]
    scans = overscans(store, ("bias_frames", "dark_frames"))
    rows = _amplifiers(store, found, scans)
    sections = [_mosaic_section(store, each) for each in found]
    sections += [_amplifier_section(rows), _trend_section(store, scans), _input_section(store)]
    return write_page(
        store,
        Path(path),
        kind="Biases and darks",
        steps=STEPS,
        tiles=_tiles(store, rows),
        sections=sections,
    )


def _calibrations(store: Store, product: str, unit: str) -> Calibrations:
    found = Calibrations(product, unit)
    sizes = store[product].sizes
    if sizes[v.DETECTOR] * sizes[v.Y] * sizes[v.X] > MOST_PIXELS:
        found.note = " Pixels of so many detectors are not read again for a report."
        return found
    for name, block in each_detector(store, product):
        image = block["image"].to_numpy().astype(np.float64)
        sigma = np.sqrt(block["variance"].to_numpy().astype(np.float64))
        good = np.isfinite(image) & (block[v.MASK].to_numpy() == 0)
        found.levels[name] = bin_means(image, good)
        found.errors[name] = bin_means(sigma, good & np.isfinite(sigma))
        for row in amplifier_rows(store.camera.amplifiers(name)):
            area = row.trimmed.slices
            found.amplifiers[name, row.name] = _figures(
                image[area], sigma[area], good[area], block[v.MASK].to_numpy()[area]
            )
    return found


def _figures(
    image: Floats, sigma: Floats, good: NDArray[np.bool_], mask: NDArray[np.int32]
) -> dict[str, float]:
    values = image[good]
    bad = float(np.mean((mask & v.MASK_PLANES["BAD"]) != 0))
    if not values.size:
        return {"level": np.nan, "rms": np.nan, "error": np.nan, "hot": np.nan, "bad": bad}
    low, middle, high = np.percentile(values, [25.0, 50.0, 75.0])
    rms = 0.7413 * (high - low)
    return {
        "level": middle,
        "rms": rms,
        "error": float(np.median(sigma[good])),
        "hot": float(np.mean(values > middle + HOT * rms)),
        "bad": bad,
    }


def _amplifiers(store: Store, found: list[Calibrations], scans: Overscans | None) -> xr.Dataset:
    """Return the figures of all amplifiers, over ``channel``."""
    tables = {name: store.camera.amplifiers(name) for name in store.camera.detector_names()}
    chosen = {name for each in found for name, _ in each.amplifiers}
    chosen |= set() if scans is None else {name for name, _ in scans.channels}
    channels = [
        (name, str(amp))
        for name, table in tables.items()
        if name in chosen
        for amp in table[v.AMP].to_numpy()
    ]

    def column(product: str, quantity: str) -> Floats:
        by_channel = next((each.amplifiers for each in found if each.product == product), {})
        return np.array([by_channel.get(c, {}).get(quantity, np.nan) for c in channels], float)

    def of_camera(quantity: str) -> Floats:
        return np.array(
            [
                float(tables[name][quantity].sel({v.AMP: amp}))
                if quantity in tables[name]
                else np.nan
                for name, amp in channels
            ],
            float,
        )

    gain = of_camera("gain")
    noise = np.full(len(channels), np.nan)
    if scans is not None:
        each = scans.medians("overscan_noise")
        noise = np.array([each.get(channel, np.nan) for channel in channels], float)
    columns = {
        "bias_level": column("bias", "level"),
        "bias_rms": column("bias", "rms"),
        "bias_error": column("bias", "error"),
        "read_noise": noise * gain,
        "nominal_noise": of_camera("read_noise"),
        "dark_current": column("dark", "level") * gain,
        "dark_error": column("dark", "error") * gain,
        "hot": column("dark", "hot"),
        "bad": np.fmax(column("bias", "bad"), column("dark", "bad")),
    }
    return xr.Dataset(
        {name: ("channel", values) for name, values in columns.items()},
        coords={
            v.DETECTOR: ("channel", np.array([name for name, _ in channels], dtype=str)),
            v.AMP: ("channel", np.array([amp for _, amp in channels], dtype=str)),
        },
    )


def _mosaic_section(store: Store, found: Calibrations) -> Section:
    what = "bias" if found.product == "bias" else "dark"
    text = (
        "What the read-out adds to every frame after its overscan."
        if what == "bias"
        else "What comes without light, for each second of dark time."
    )
    images: list[Image] = []
    if found.levels and store.camera.pixel_size is not None:
        transforms, shapes = detector_places(store)
        for values, unit, about in (
            (found.levels, f"level ({found.unit})", "level"),
            (found.errors, f"standard error of a pixel ({found.unit})", "error"),
        ):
            images.append(
                drawn_image(
                    partial(
                        mosaic_figure,
                        signed=what == "bias" and about == "level",
                        empty=f"no {what} was made",
                    ),
                    values,
                    transforms,
                    shapes,
                    unit,
                    text=f"Combined {what} of all detectors: {about}",
                    caption=f"Combined {what}, {about}: means of good pixels, {BIN} × {BIN} each.",
                )
            )
    return Section(what, f"Combined {what}", text + found.note, images, [_block_table(store, what)])


def _block_table(store: Store, product: str) -> Table:
    rows = []
    for record in store.records(product).values():
        if record.done:
            quality = record.quality
            rows.append(
                (
                    str(record.block[v.DETECTOR]),
                    str(quality["frames"]),
                    number(float(np.nan if quality["median"] is None else quality["median"])),
                    number(100 * float(quality["bad_fraction"]), 3),
                    "; ".join(record.warnings),
                )
            )
    return Table(
        f"Every {product}",
        ("detector", "frames used", "median", "pixels without value (%)", "warnings"),
        sorted(rows),
        (1, 2, 3),
        f"No {product} was made.",
    )


def _amplifier_section(rows: xr.Dataset) -> Section:
    channels = list(zip(rows[v.DETECTOR].to_numpy(), rows[v.AMP].to_numpy(), strict=True))
    panels = [
        ("structure of\nthe bias (adu rms)", rows["bias_rms"].to_numpy(), None),
        ("read noise\n(electron)", rows["read_noise"].to_numpy(), rows["nominal_noise"].to_numpy()),
        ("dark current\n(electron/s)", rows["dark_current"].to_numpy(), None),
        ("hot pixels (%)", 100 * rows["hot"].to_numpy(), None),
    ]
    shown = [panel for panel in panels if np.isfinite(panel[1]).any()]
    images = []
    if shown:
        images.append(
            drawn_image(amplifier_figure, channels, shown, text="Figures of all amplifiers")
        )
    return Section(
        "amplifiers",
        "Amplifiers",
        "Read noise is that of the overscans, with the gains of the camera. Hot pixels are more "
        f"than {HOT:g} robust standard deviations above the median of their amplifier.",
        images,
        [_amplifier_table(rows)],
    )


def _amplifier_table(rows: xr.Dataset) -> Table:
    noise = rows["read_noise"].to_numpy()
    # Amplifiers are judged beside the others: by their noise, current and defects.
    scores = [
        _excess(rows[name].to_numpy()) for name in ("read_noise", "dark_current", "hot", "bad")
    ]
    score = np.nan_to_num(np.nanmax(np.stack([*scores, np.zeros(noise.size)]), axis=0))
    cells = []
    for i in np.argsort(-score, kind="stable")[:MOST_ROWS]:
        one = {name: float(rows[name].to_numpy()[i]) for name in rows.data_vars}
        cells.append(
            (
                str(rows[v.DETECTOR].to_numpy()[i]),
                str(rows[v.AMP].to_numpy()[i]),
                number(one["bias_level"], 3),
                number(one["bias_rms"], 3),
                number(one["bias_error"], 3),
                number(one["read_noise"], 3),
                number(one["nominal_noise"], 3),
                number(one["dark_current"], 3),
                number(one["dark_error"], 3),
                number(100 * one["hot"], 3),
                number(100 * one["bad"], 3),
            )
        )
    columns = (
        "detector",
        "amplifier",
        "bias (adu)",
        "its structure (adu rms)",
        "error of a pixel (adu)",
        "read noise (electron)",
        "as the camera says",
        "dark current (electron/s)",
        "error of a pixel (electron/s)",
        "hot pixels (%)",
        "BAD pixels (%)",
    )
    return Table(
        "Amplifiers, the oddest first", columns, cells, tuple(range(2, 11)), "None was measured."
    )


def _excess(values: Floats) -> Floats:
    """Return how far values are above their median, in units of it."""
    finite = values[np.isfinite(values)]
    middle = float(np.median(finite)) if finite.size else np.nan
    return (values - middle) / (abs(middle) or 1.0)


def _trend_section(store: Store, scans: Overscans | None) -> Section:
    images = []
    if scans is not None:
        level, noise = (scans.values[name] for name in QUANTITIES)
        level = level - own_medians(level)
        usual = own_medians(noise)
        noise = 100 * (noise / np.where(usual > 0, usual, np.nan) - 1)
        panels = [
            ("overscan level less\nits median (adu)", level),
            ("noise of the overscan\n/ its median − 1 (%)", noise),
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
    return Section(
        "trend",
        "Against time",
        "Levels and noises of the overscans of biases and darks.",
        images,
    )


def _input_section(store: Store) -> Section:
    return Section(
        "inputs",
        "Inputs",
        "What went into the calibrations, and what did not.",
        tables=[_input_table(store, kind) for kind in (v.BIAS, v.DARK)],
    )


def _input_table(store: Store, kind: str) -> Table:
    step = f"{kind}_frames"
    records = store.records(step)
    by_exposure: dict[int, list[tuple[bool, str]]] = {}
    for record in records.values():
        told = by_exposure.setdefault(int(record.block[v.EXPOSURE]), [])
        told.append((record.done, f"{record.block[v.DETECTOR]} {record.status}: {record.reason}"))
    rows = []
    if "raw" in store:
        table = store.exposures()
        for i in np.flatnonzero(table["observation_type"].to_numpy() == kind):
            exposure = int(table[v.EXPOSURE].to_numpy()[i])
            told = by_exposure.get(exposure, [])
            lost = [reason for done, reason in told if not done]
            rows.append(
                (
                    str(exposure),
                    *(number(float(table[name].to_numpy()[i])) if name in table.coords else "–"
                      for name in ("exposure_time", "dark_time")),
                    f"{len(told) - len(lost)} of {len(told)}" if told else "0",
                    "; ".join(lost) if told else "not selected by the configuration",
                )
            )  # fmt: skip
    return Table(
        f"Every {kind} of the store",
        ("exposure", "exposure time (s)", "dark time (s)", "detectors used", "left out, and why"),
        rows,
        (0, 1, 2),
        f"The store holds no {kind}s.",
    )


def _tiles(store: Store, rows: xr.Dataset) -> list[tuple[str, str, str]]:
    tiles = []
    for product in ("bias", "dark"):
        done = store.done(product) if product in store else np.zeros(0, bool)
        frames = [
            int(record.quality["frames"])
            for record in store.records(product).values()
            if record.done
        ]
        note = f"of {done.size} detectors"
        if frames:
            few, many = min(frames), max(frames)
            note += f", {few} frames each" if few == many else f", {few} to {many} frames each"
        tiles.append((f"{product}es" if product == "bias" else "darks", str(int(done.sum())), note))
    for name, text, unit in (
        ("read_noise", "read noise", "electron"),
        ("dark_current", "dark current", "electron/s"),
    ):
        values = rows[name].to_numpy()
        values = values[np.isfinite(values)]
        if values.size:
            tiles.append((text, number(float(np.median(values)), 3), f"{unit}, median"))
    hot = rows["hot"].to_numpy()
    if np.isfinite(hot).any():
        tiles.append(("hot pixels", f"{100 * np.nanmean(hot):.3f} %", "of the darks"))
    return tiles
