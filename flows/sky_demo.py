"""The demo of a night of sky: from files to exposures without their sky, beside the truth.

Biases, darks, dome flats and dithered exposures of a small mosaic are simulated into FITS files,
ingested, and go through every flow from biases to sky frames. Everything is left in the
directory; called again, nothing is done twice.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SkyloomError
from skyloom.algorithms.focal_plane import to_focal_plane
from skyloom.algorithms.simulate import (
    PlanParameters,
    SceneParameters,
    night_plan,
    sky_pattern,
)
from skyloom.flows.biases_darks_flow import biases_darks
from skyloom.flows.camera_constants import detector_transforms
from skyloom.flows.detrend_flow import detrend
from skyloom.flows.flat_normalization_flow import flat_normalization
from skyloom.flows.ingest_flow import ingest
from skyloom.flows.night_files import SimulatedNight, simulated_night, write_night
from skyloom.flows.progress import Observer, choose_observers
from skyloom.flows.sky_frames_flow import sky_frames
from skyloom.storage.camera import load_camera
from skyloom.storage.store import create_store, open_store

if TYPE_CHECKING:
    from rich.table import Table

    from skyloom.flows.flow import Flow
    from skyloom.storage.store import Store

__all__ = ["SkyDemoResult", "compare_frames", "compare_levels", "run_sky_demo"]

SEED: Final = 20_260_102
CAMERA: Final = "simulated-sky"
FILTER: Final = "r"
SCIENCE: Final = 7
SMOOTH: Final = 2
"""Degree of the smooth sky of exposures, which frames have no part of."""
FLOWS: Final[tuple[Callable[..., Flow], ...]] = (
    biases_darks,
    flat_normalization,
    detrend,
    sky_frames,
)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class SkyDemoResult:
    """What the demo found.

    Parameters
    ----------
    levels : Dataset, (exposure)
        See `compare_levels`.
    frames : Dataset, (detector)
        See `compare_frames`.
    reports : tuple of Path
        The pages to open in a browser.
    problems : int
        Blocks or files that failed.
    """

    levels: xr.Dataset
    frames: xr.Dataset
    reports: tuple[Path, ...]
    problems: int

    @property
    def exit_code(self) -> int:
        """0 if everything was made, 1 otherwise."""
        return 1 if self.problems else 0


def run_sky_demo(
    directory: Path,
    *,
    science: int = SCIENCE,
    workers: int | None = None,
    progress: bool | Observer | None = None,
) -> SkyDemoResult:
    """Simulate a night, ingest, run all flows, report, compare; print what happens.

    Parameters
    ----------
    directory : Path
        New, or that of an earlier demo.
    science : int
        Exposures of the sky.
    workers : int, optional
        Tasks at a time.
    progress : bool or Observer, optional
        As for `skyloom.flows.flow.Flow.run`.

    Raises
    ------
    SkyloomError
        If the directory holds something else.
    """
    from rich.console import Console  # heavy, and only needed here

    console = Console(width=max(Console().width, 90))
    files, url = directory / "fits", directory / "store"
    if directory.exists() and any(directory.iterdir()) and not files.exists():
        raise SkyloomError(f"{directory} is not empty and not of a demo: choose another directory")
    night = _night(science)
    count, detectors = night.plan.sizes[v.EXPOSURE], len(night.truth)
    console.print(f"{count} exposures of {detectors} detectors as FITS files in {files}")
    write_night(files, night, choose_observers(progress), workers=workers)
    store = open_store(url) if (url / "zarr.json").exists() else create_store(url, night.camera)
    ingested = ingest(store, files, workers=workers, progress=progress)
    console.print(str(ingested))
    problems, reports = ingested.exit_code, []
    for make in FLOWS:
        flow = make(store)
        summary = flow.run(workers=workers, progress=progress)
        console.print(f"{flow.name}: {summary}")
        problems += len(summary.problems)
        reports.append(flow.report(directory / f"{flow.name}.html"))
    levels, frames = compare_levels(store, night), compare_frames(store, night)
    found = {"levels": levels.to_dict(), "frames": frames.to_dict()}
    (directory / "truth.json").write_text(json.dumps(found))
    console.print(levels_table(levels))
    console.print(frames_table(frames))
    ratio, sigma = levels["ratio"].to_numpy(), levels["ratio_sigma"].to_numpy()
    if ratio.size:
        console.print(
            f"scale / level: mean {np.mean(ratio):.4f}, scatter {np.std(ratio):.4f}, "
            f"error bars {np.mean(sigma):.4f}"
        )
    console.print(f"again: skyloom run {url} sky_frames")
    for report in reports:
        console.print(f"report: {report}")
    return SkyDemoResult(levels, frames, tuple(reports), problems)


def _night(science: int) -> SimulatedNight:
    plan = night_plan(
        (FILTER,),
        biases=5,
        darks=4,
        flats=4,
        science=science,
        seed=SEED,
        parameters=PlanParameters(dither=60.0),
    )
    scene = SceneParameters(star_density=2.0, galaxy_density=1.0)
    return simulated_night(load_camera(CAMERA), plan, (FILTER,), seed=SEED, scene=scene)


def compare_levels(store: Store, night: SimulatedNight) -> xr.Dataset:
    """Compare levels and scales of the sky of each exposure with the truth.

    Parameters
    ----------
    store : Store
        With the product ``sky_fit``.
    night : SimulatedNight
        The truth.

    Returns
    -------
    Dataset, (exposure)
        ``truth`` and ``level`` (electron, of the gains that the camera states), ``ratio`` =
        scale of the sky frame / level, and its standard error ``ratio_sigma``.
    """
    fit = store["sky_fit"].isel({v.EXPOSURE: store.done("sky_fit")}).load()
    true = night.plan["level"].sel({v.EXPOSURE: fit[v.EXPOSURE]}).to_numpy()
    columns: Mapping[str, Any] = {
        "truth": true,
        "level": fit["level"].to_numpy(),
        "ratio": (fit["scale"] / fit["level"]).to_numpy(),
        "ratio_sigma": (fit["scale_sigma"] / fit["level"]).to_numpy(),
    }
    return xr.Dataset(
        {name: (v.EXPOSURE, values) for name, values in columns.items()},
        coords={v.EXPOSURE: fit[v.EXPOSURE].to_numpy()},
    )


def compare_frames(store: Store, night: SimulatedNight) -> xr.Dataset:
    """Compare the sky frame of each detector with the true pattern.

    Both are taken without what is smooth over the focal plane, which belongs to the sky.

    Parameters
    ----------
    store : Store
        With the product ``sky_frame``.
    night : SimulatedNight
        The truth.

    Returns
    -------
    Dataset, (detector)
        ``pattern`` and ``error``: rms of the true pattern, and of the frame less it, relative to
        the sky; ``correlation`` of the two.
    """
    transforms = detector_transforms(night.camera)
    names, found, true, places = [], [], [], []
    for name, truth in night.truth.items():
        block = {v.FILTER: FILTER, v.DETECTOR: name}
        record = store.read_record("sky_frame", block)
        if record is None or not record.done:
            continue
        frame = store.read_block("sky_frame", block)
        often = (frame["exposure_count"] >= 3).to_numpy()
        height = float(frame["y_stop"]) / int(frame["bins_y"])
        width = float(frame["x_stop"]) / int(frame["bins_x"])
        row, column = (
            (np.arange(often.shape[axis]) + 0.5) * side - 0.5
            for axis, side in enumerate((height, width))
        )
        y, x = np.meshgrid(row, column, indexing="ij")
        names.append(name)
        found.append(frame["level"].to_numpy()[often].astype(np.float64))
        true.append(np.asarray(sky_pattern(truth, y, x)).squeeze()[often])
        places.append(np.stack(to_focal_plane(transforms[name], x[often], y[often])))
    measured, pattern = _rough(found, places), _rough(true, places)
    errors = [one - other for one, other in zip(measured, pattern, strict=True)]
    return xr.Dataset(
        {
            "pattern": (v.DETECTOR, [float(np.std(one)) for one in pattern]),
            "error": (v.DETECTOR, [float(np.std(one)) for one in errors]),
            "correlation": (
                v.DETECTOR,
                [
                    float(np.corrcoef(one, other)[0, 1])
                    for one, other in zip(measured, pattern, strict=True)
                ],
            ),
        },
        coords={v.DETECTOR: names},
    )


def _rough(values: list[Floats], places: list[Floats]) -> list[Floats]:
    """Return values less polynomials over the focal plane."""
    if not values:
        return []
    x, y = np.concatenate(places, axis=1)
    u, w = x / np.abs(x).max(), y / np.abs(y).max()
    terms = [(i, j) for i in range(SMOOTH + 1) for j in range(SMOOTH + 1 - i)]
    smooth = np.stack([u**i * w**j for i, j in terms], axis=1)
    every = np.concatenate(values)
    rest = every - smooth @ np.linalg.lstsq(smooth, every)[0]
    return np.split(rest, np.cumsum([one.size for one in values])[:-1])


def levels_table(levels: xr.Dataset) -> Table:
    """Return the levels of the sky as a table to print."""
    rows = []
    for i, exposure in enumerate(levels[v.EXPOSURE].to_numpy()):
        one = {name: float(levels[name].to_numpy()[i]) for name in levels.data_vars}
        rows.append(
            (
                str(exposure),
                f"{one['truth']:.1f}",
                f"{one['level']:.1f}",
                f"{100 * (one['level'] / one['truth'] - 1):+.2f} %",
                f"{one['ratio']:.4f}",
                f"{one['ratio_sigma']:.4f}",
            )
        )
    columns = ("exposure", "true sky", "level", "difference", "scale / level", "error bar")
    return _table("sky of each exposure, electron", columns, rows)


def frames_table(frames: xr.Dataset) -> Table:
    """Return the comparison of sky frames as a table to print."""
    rows = [
        (
            str(name),
            f"{100 * float(frames['pattern'].to_numpy()[i]):.3f} %",
            f"{100 * float(frames['error'].to_numpy()[i]):.3f} %",
            f"{float(frames['correlation'].to_numpy()[i]):.4f}",
        )
        for i, name in enumerate(frames[v.DETECTOR].to_numpy())
    ]
    columns = ("detector", "true pattern, rms", "frame less truth, rms", "correlation")
    return _table("sky frames, relative to the sky", columns, rows)


def _table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> Table:
    from rich import box  # heavy, and only needed here
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left")
    for i, name in enumerate(columns):
        table.add_column(name, justify="right" if i else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table
