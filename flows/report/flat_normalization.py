"""The report of flats: residuals, responses, light, what is left out and why, combined flats."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.flows.report.exposures_page import Section, Table, write_page
from skyloom.flows.report.flat_figures import (
    light_figure,
    matrix_figure,
    pull_figure,
    response_figure,
)
from skyloom.flows.report.focal_plane import focal_plane
from skyloom.flows.report.mosaics import BIN, bin_means, detector_places
from skyloom.flows.report.numbers import number, with_error
from skyloom.flows.report.sections import Image, drawn_image
from skyloom.flows.report.sky_figures import mosaic_figure

if TYPE_CHECKING:
    from skyloom.storage.records import Record
    from skyloom.storage.store import Store

__all__ = ["write_report"]

STEPS: Final = (
    "ingest",
    "flat_frames",
    "flat_statistics",
    "flat_levels",
    "flat_scales",
    "flat",
)
MOST_PIXELS: Final = 10**8
"""Flats of larger cameras are not read again to be shown."""
Cells = dict[tuple[int, str], "Record"]


@dataclass(frozen=True)
class Solution:
    """The scales of one filter: arrays over (channel, exposure), channels that exist only."""

    name: str
    scales: xr.Dataset
    channels: list[tuple[str, str]]
    exposures: list[int]
    residual: NDArray[np.float64]
    pull: NDArray[np.float64]
    status: NDArray[np.uint8]
    response: NDArray[np.float64]
    response_sigma: NDArray[np.float64]

    @property
    def title(self) -> str:
        """Name of the filter for people."""
        return self.name or "without name"

    @property
    def labels(self) -> list[str]:
        """Names of the channels."""
        return [" ".join(filter(None, channel)) for channel in self.channels]

    @property
    def good(self) -> NDArray[np.bool_]:
        """Which exposures are used."""
        return np.asarray(self.scales["exposure_status"].to_numpy() == v.CellStatus.OK)

    @property
    def left_out(self) -> NDArray[np.bool_]:
        """Which levels do not enter the solution."""
        return np.asarray((self.status != v.CellStatus.OK) | ~self.good)


def write_report(store: Store, path: str | os.PathLike[str]) -> Path:
    """Write the report of a store's flats, as far as they came.

    Parameters
    ----------
    store : Store
        A store in which the flow ``flat_normalization`` was run.
    path : str or path
        The HTML file to write.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    solutions = _solutions(store)
    frames = _by_cell(store)
    sections = []
    for index, solution in enumerate(solutions):
        sections.append(_scales_section(store, solution, frames, f"scales-{index}"))
    sections.append(
        Section(
            "flats",
            "Combined flats",
            "Structure within each detector, relative to its median: one mosaic a filter.",
            _mosaics(store),
            [_flat_table(store)],
        )
    )
    return write_page(
        store,
        Path(path),
        kind="Flats",
        steps=STEPS,
        tiles=_tiles(store, solutions),
        sections=sections,
    )


def _by_cell(store: Store) -> Cells:
    """Return what became of the frames of each exposure and detector."""
    return {
        (int(record.block[v.EXPOSURE]), str(record.block[v.DETECTOR])): record
        for record in store.records("flat_frames").values()
        if set(record.block) == {v.EXPOSURE, v.DETECTOR}
    }


def _solutions(store: Store) -> list[Solution]:
    if "flat_scales" not in store:
        return []
    done = store.done("flat_scales")
    opened = store["flat_scales"]
    return [
        _solution(store, opened.isel({v.FILTER: row}).load())
        for row in range(opened.sizes[v.FILTER])
        if done[row]
    ]


def _solution(store: Store, scales: xr.Dataset) -> Solution:
    measured = scales["exposure_status"].to_numpy() != v.CellStatus.NOT_MEASURED
    scales = scales.isel({v.EXPOSURE: measured})
    dims = [dim for dim in (v.DETECTOR, v.AMP) if dim in scales["detector_scale"].dims]
    names = [str(name) for name in scales[v.DETECTOR].to_numpy()]
    if len(dims) == 1:
        channels = [(name, "") for name in names]
    else:
        amps = [str(name) for name in scales[v.AMP].to_numpy()]
        channels = [(name, amp) for name in names for amp in amps]
    known = {name: set(store.camera.amplifier_names(name)) | {""} for name in names}
    part = scales["detector_status"].transpose(*dims).to_numpy().ravel()
    keep = np.array(
        [
            amp in known[name] and code != v.CellStatus.NOT_MEASURED
            for (name, amp), code in zip(channels, part, strict=True)
        ],
        bool,
    )

    def cells(name: str) -> NDArray[Any]:
        values = scales[name].transpose(*dims, v.EXPOSURE).to_numpy()
        return np.asarray(values.reshape(len(channels), -1)[keep])

    def column(name: str) -> NDArray[Any]:
        return np.asarray(scales[name].transpose(*dims).to_numpy().ravel()[keep])

    return Solution(
        str(scales[v.FILTER].item()),
        scales,
        [channel for channel, has in zip(channels, keep, strict=True) if has],
        [int(label) for label in scales[v.EXPOSURE].to_numpy()],
        cells("residual"),
        cells("pull"),
        cells("cell_status"),
        column("detector_scale"),
        column("detector_scale_sigma"),
    )


def _scales_section(store: Store, solution: Solution, frames: Cells, anchor: str) -> Section:
    scales = solution.scales
    table = store.exposures().sel({v.EXPOSURE: solution.exposures})
    start = table["mjd_start"].to_numpy() if "mjd_start" in table.coords else np.nan
    time = np.broadcast_to(np.asarray(start, np.float64), len(solution.exposures))
    chi2, dof = float(scales["chi2"]), int(scales["dof"])
    plane = focal_plane(
        xr.Dataset(
            coords={
                v.DETECTOR: list(dict.fromkeys(name for name, _ in solution.channels)),
                v.AMP: list(store.camera.amplifier_names()),
            }
        ),
        store.camera,
    )
    polygons = [
        plane.amplifiers[name, amp] if amp else plane.detectors[name]
        for name, amp in solution.channels
    ]
    light, sigma = (scales[name].to_numpy() for name in ("exposure_scale", "exposure_scale_sigma"))
    text = (
        f"χ² {number(chi2)} for {dof} degrees of freedom with a scatter of "
        f"{100 * float(scales['systematic']):.3g} % beyond the noise; link strength of the "
        f"detectors {number(float(scales['link_strength']), 3)}."
    )
    if "gradient_f" in scales:
        text += (
            f" Gradients of illumination: F {number(float(scales['gradient_f']), 3)}, probability "
            f"of a larger one by chance {number(float(scales['gradient_p_value']), 2)}."
        )
    return Section(
        anchor,
        f"Filter {solution.title}",
        text,
        [
            drawn_image(
                matrix_figure,
                solution.residual,
                solution.left_out,
                solution.labels,
                list(map(str, solution.exposures)),
                text=f"Residuals of the levels through {solution.title}",
            ),
            drawn_image(
                response_figure,
                polygons,
                solution.response,
                solution.labels,
                text=f"Response through {solution.title}",
            ),
            drawn_image(
                light_figure,
                time,
                light,
                sigma,
                solution.good,
                text=f"Light of the flats through {solution.title}",
            ),
            drawn_image(
                pull_figure,
                solution.pull,
                solution.left_out,
                text=f"Pulls of the levels through {solution.title}",
                caption="A wider histogram than expected: levels scatter by more than "
                "`scales.systematic`, or light is not even (`scales.gradient_order`).",
            ),
        ],
        [_left_out_table(solution, frames), _exposure_table(solution), _channel_table(solution)],
    )


def _left_out_table(solution: Solution, frames: Cells) -> Table:
    """Return the exposures and levels that do not enter the solution, and why."""
    rows = []
    for column, exposure in enumerate(solution.exposures):
        status = v.CellStatus(int(solution.scales["exposure_status"].to_numpy()[column]))
        own = solution.status[:, column]
        if status != v.CellStatus.OK:
            odd = int((np.abs(solution.pull[:, column]) > 5).sum())
            reason = f"contradicts the others in {odd} of {own.size}"
            if status == v.CellStatus.MISSING:
                reason = "; ".join(
                    dict.fromkeys(_reason(frames, exposure, name) for name, _ in solution.channels)
                )
            rows.append((str(exposure), "all", status.name, reason, "", ""))
            continue
        for row in np.flatnonzero(own != v.CellStatus.OK):
            name = solution.channels[row][0]
            code = v.CellStatus(int(own[row]))
            residual, pull = solution.residual[row, column], solution.pull[row, column]
            reason = (
                "contradicts the others"
                if code == v.CellStatus.OUTLIER
                else _reason(frames, exposure, name)
            )
            rows.append(
                (
                    str(exposure),
                    solution.labels[row],
                    code.name,
                    reason,
                    number(100 * residual, 3),
                    number(pull, 3),
                )
            )
    return Table(
        "Left out, and why",
        ("exposure", "detector", "status", "reason", "residual (%)", "residual (σ)"),
        rows,
        (0, 4, 5),
        "Nothing: every level enters the solution.",
    )


def _reason(frames: Cells, exposure: int, detector: str) -> str:
    """Return why there is no level, by the record of its frame."""
    record = frames.get((exposure, detector))
    if record is None:
        return "no such exposure of this detector"
    if not record.done:
        return record.reason or record.status
    masked = record.quality.get("masked", {})
    shares = ", ".join(f"{100 * share:.0f} % {plane}" for plane, share in masked.items())
    return f"no usable pixel: {shares}" if shares else "level is not positive"


def _exposure_table(solution: Solution) -> Table:
    scales = solution.scales
    rows = []
    for column, exposure in enumerate(solution.exposures):
        light, sigma, used, status = (
            scales[name].to_numpy()[column]
            for name in (
                "exposure_scale",
                "exposure_scale_sigma",
                "exposure_cell_count",
                "exposure_status",
            )
        )
        use = ~solution.left_out[:, column] & np.isfinite(solution.residual[:, column])
        rms = np.sqrt(np.mean(solution.residual[use, column] ** 2)) if use.any() else np.nan
        rows.append(
            (
                str(exposure),
                with_error(float(light), float(sigma)),
                f"{int(used)} / {len(solution.channels)}",
                number(100 * float(rms), 3),
                v.CellStatus(int(status)).name,
            )
        )
    columns = ("exposure", "light (electron)", "levels used", "rms of residuals (%)", "status")
    return Table("Every exposure", columns, rows, (0, 1, 2, 3))


def _channel_table(solution: Solution) -> Table:
    rows = []
    use = ~solution.left_out & np.isfinite(solution.residual)
    for row, name in enumerate(solution.labels):
        own = solution.residual[row, use[row]]
        rms = float(np.sqrt(np.mean(own**2))) if own.size else float("nan")
        value, sigma = float(solution.response[row]), float(solution.response_sigma[row])
        rows.append(
            (
                -rms if np.isfinite(rms) else -np.inf,
                (name, with_error(value, sigma), f"{own.size}", number(100 * rms, 3)),
            )
        )
    rows.sort(key=lambda found: found[0])
    return Table(
        "Detectors, the worst first",
        ("detector", "response", "levels used", "rms of residuals (%)"),
        [cells for _, cells in rows],
        (1, 2, 3),
    )


def _flat_table(store: Store) -> Table:
    rows = []
    for record in store.records("flat").values():
        if not record.done:
            continue
        quality = record.quality
        rows.append(
            (
                str(record.block[v.FILTER]),
                str(record.block[v.DETECTOR]),
                number(float(quality["median"] or np.nan)),
                number(100 * float(quality["noise"] or np.nan), 3),
                str(quality["frames"]),
                str(quality["left_out"]),
                number(100 * float(quality["bad_pixels"]), 3),
                "; ".join(record.warnings),
            )
        )
    return Table(
        "Every flat",
        (
            "filter",
            "detector",
            "median",
            "noise of a pixel (%)",
            "exposures",
            "left out",
            "BAD pixels (%)",
            "warnings",
        ),
        sorted(rows),
        (2, 3, 4, 5, 6),
        "No flat was made.",
    )


def _mosaics(store: Store) -> list[Image]:
    if "flat" not in store or store.camera.pixel_size is None:
        return []
    done, flats = store.done("flat"), store["flat"]
    if int(done.sum()) * flats.sizes[v.Y] * flats.sizes[v.X] > MOST_PIXELS:
        return []
    transforms, shapes = detector_places(store)
    images = []
    for row, physical_filter in enumerate(flats[v.FILTER].to_numpy()):
        levels = {}
        for column, name in enumerate(map(str, flats[v.DETECTOR].to_numpy())):
            if done[row, column]:
                flat = flats[["image", v.MASK]].isel({v.FILTER: row, v.DETECTOR: column}).load()
                levels[name] = _binned(flat, shapes[name])
        title = physical_filter or "without name"
        images.append(
            drawn_image(
                mosaic_figure,
                levels,
                transforms,
                shapes,
                "flat / its median − 1",
                text=f"Combined flats through {title}",
                caption=f"Filter {title}, means of {BIN} × {BIN} pixels.",
            )
        )
    return images


def _binned(flat: xr.Dataset, shape: tuple[int, int]) -> NDArray[np.float64]:
    """Return means of good pixels in bins, relative to the median of all."""
    image = flat["image"].to_numpy()[: shape[0], : shape[1]].astype(np.float64)
    good = np.isfinite(image) & (flat[v.MASK].to_numpy()[: shape[0], : shape[1]] == 0)
    if not good.any():
        return np.full((1, 1), np.nan)
    return bin_means(image / np.median(image[good]) - 1, good)


def _tiles(store: Store, solutions: list[Solution]) -> list[tuple[str, str, str]]:
    flats = store.done("flat") if "flat" in store else np.zeros((0, 0), bool)
    tiles = [("flats", str(int(flats.sum())), f"of {flats.size}, filters × detectors")]
    if solutions:
        good = sum(int(each.good.sum()) for each in solutions)
        every = sum(len(each.exposures) for each in solutions)
        tiles.append(("exposures used", str(good), f"of {every}"))
        odd = sum(int((each.status == v.CellStatus.OUTLIER).sum()) for each in solutions)
        tiles.append(("levels that contradict", str(odd), "outliers, left out"))
        dof = sum(int(each.scales["dof"]) for each in solutions)
        chi2 = sum(float(each.scales["chi2"]) for each in solutions)
        tiles.append(("χ² / dof", number(chi2 / dof, 3) if dof > 0 else "–", "of all filters"))
        used = np.concatenate([each.residual[~each.left_out] for each in solutions])
        used = used[np.isfinite(used)]
        rms = float(np.sqrt(np.mean(used**2))) if used.size else float("nan")
        tiles.append(("rms of residuals", f"{number(100 * rms, 3)} %", "of levels used"))
    return tiles
