"""The demo: flats of known truth, from files to a report, and a table of how well it went.

A small mosaic is simulated into multi-extension FITS files, ingested, measured and solved like
any other. Everything is left in the directory, the truth as ``truth.json``; called again, nothing
is done twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
import yaml

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import SkyloomError
from skyloom.algorithms.simulate import flat_plan, flat_truth, simulate_exposure
from skyloom.flows.ingest_flow import ingest
from skyloom.flows.night_files import write_exposures
from skyloom.flows.photon_transfer_flow import photon_transfer
from skyloom.flows.progress import Observer, choose_observers
from skyloom.storage.camera import Camera, load_camera
from skyloom.storage.store import create_store, open_store

if TYPE_CHECKING:
    from rich.table import Table

__all__ = ["DemoResult", "comparison", "run_demo"]

SEED: Final = 20_260_101
CAMERA: Final = "simulated-mosaic"
LEVELS: Final = 24
FAINTEST, BRIGHTEST = 400.0, 1.1e5  # electron; the brightest reach beyond the full well
CONFIGURATION: Final[Mapping[str, Any]] = {
    "pairs": {"use_extra_pairs": True},
    "detrend": {"serial": "level"},
}
"""The simulated rows share one bias level. Subtracting each row's own would add the error of that
level, 1/32 of the noise variance, to what the table compares with the true noise."""
QUANTITIES: Final = ("gain", "noise", "a_00")


@dataclass(frozen=True)
class DemoResult:
    """What the demo found.

    Parameters
    ----------
    comparison : Dataset, (detector, amp, quantity)
        ``truth``, ``recovered``, ``sigma`` and ``pull``.
    report : Path
        The page to open in a browser.
    problems : int
        Blocks or files that failed.
    """

    comparison: xr.Dataset
    report: Path
    problems: int

    @property
    def exit_code(self) -> int:
        """0 if everything was made, 1 otherwise."""
        return 1 if self.problems else 0


def run_demo(
    directory: Path,
    *,
    levels: int = LEVELS,
    workers: int | None = None,
    progress: bool | Observer | None = None,
) -> DemoResult:
    """Simulate, ingest, run, report, compare; print what happens.

    Parameters
    ----------
    directory : Path
        New, or that of an earlier demo.
    levels : int
        Light levels; two pairs of flats at each.
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
    camera = load_camera(CAMERA)
    files, url = directory / "fits", directory / "store"
    if directory.exists() and any(directory.iterdir()) and not files.exists():
        raise SkyloomError(f"{directory} is not empty and not of a demo: choose another directory")
    plan = _plan(levels)
    truth = {name: flat_truth(camera.amplifiers(name), seed=SEED) for name in _detectors(camera)}
    count = plan.sizes[v.EXPOSURE]
    console.print(f"{count} exposures of {len(truth)} detectors as FITS files in {files}")
    write_exposures(
        files,
        camera,
        plan[v.EXPOSURE].values,
        partial(_simulate, camera, plan, truth),
        choose_observers(progress),
        workers=workers,
    )
    store = open_store(url) if (url / "zarr.json").exists() else create_store(url, camera)
    ingested = ingest(store, files, workers=workers, progress=progress)
    console.print(str(ingested))
    configuration = directory / "photon_transfer.yaml"
    configuration.write_text(yaml.safe_dump(dict(CONFIGURATION), sort_keys=False))
    flow = photon_transfer(store, CONFIGURATION)
    summary = flow.run(workers=workers, progress=progress)
    console.print(str(summary))
    found = comparison(store["ptc"].load(), truth)
    rows = found["truth"].to_dataset("quantity").to_dataframe().reset_index()
    (directory / "truth.json").write_text(rows.to_json(orient="records", double_precision=15))
    report = flow.report(directory / "report.html")
    console.print(comparison_table(found))
    for name in QUANTITIES:
        pulls = found["pull"].sel(quantity=name).values
        mean, width = float(np.nanmean(pulls)), float(np.nanstd(pulls))
        console.print(f"pulls of {name}: mean {mean:+.2f}, width {width:.2f}")
    console.print(f"again: skyloom run {url} photon_transfer --config {configuration}")
    console.print(f"report: {report}")
    return DemoResult(found, report, len(summary.problems) + ingested.exit_code)


def _detectors(camera: Camera) -> list[str]:
    return list(camera.detector_names())


def _plan(levels: int) -> xr.Dataset:
    """Return biases, darks and two pairs of flats at each level."""
    return flat_plan(
        np.geomspace(FAINTEST, BRIGHTEST, levels),
        pairs=2,
        biases=4,
        dark_times=(BRIGHTEST / 1000.0,),
        seed=SEED,
    )


def _simulate(
    camera: Camera, plan: xr.Dataset, truth: Mapping[str, xr.Dataset], number: int
) -> Mapping[str, xr.Dataset]:
    return {
        name: simulate_exposure(
            plan, number, camera.amplifiers(name), table, shape=camera.detector(name).shape
        )
        for name, table in truth.items()
    }


def comparison(ptc: xr.Dataset, truth: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Compare a solved photon transfer with the truth of a simulation.

    Parameters
    ----------
    ptc : Dataset, (detector, pair, amp, lag_y, lag_x)
        The product ``ptc``.
    truth : mapping of str to Dataset
        Per detector ``gain`` (electron/adu), ``noise`` (electron), ``a`` (1/electron).

    Returns
    -------
    Dataset, (detector, amp, quantity)
        ``truth``, ``recovered``, its standard error ``sigma``, and
        ``pull`` = (recovered - truth) / sigma.

    Examples
    --------
    >>> true = xr.Dataset({"gain": ("amp", [1.5]), "noise": ("amp", [5.0]),
    ...                    "a": (("amp", "lag_y", "lag_x"), [[[-3e-6]]])},
    ...                   coords={"amp": ["A"], "lag_y": [0], "lag_x": [0]})
    >>> found = true.expand_dims(detector=["S00"]) + 0.1
    >>> sigma = {f"{name}_sigma": xr.full_like(found[name], 0.1) for name in found}
    >>> comparison(found.assign(sigma), {"S00": true}).pull.values.round(3).tolist()
    [[[1.0, 1.0, 1.0]]]
    """
    origin = {v.LAG_Y: 0, v.LAG_X: 0}

    def quantities(dataset: xr.Dataset, ending: str) -> xr.DataArray:
        parts = [
            dataset[f"gain{ending}"],
            dataset[f"noise{ending}"],
            dataset[f"a{ending}"].isel(origin, drop=True),
        ]
        joined = xr.concat(parts, "quantity", coords="minimal", compat="override", join="inner")
        return joined.assign_coords(quantity=list(QUANTITIES)).drop_attrs()

    true = xr.concat(
        [quantities(table, "") for table in truth.values()], v.DETECTOR, join="outer"
    ).assign_coords({v.DETECTOR: list(truth)})
    recovered, sigma = quantities(ptc, ""), quantities(ptc, "_sigma")
    found = xr.Dataset(
        {
            "truth": true,
            "recovered": recovered,
            "sigma": sigma,
            "pull": (recovered - true) / sigma,
        }
    )
    found = found.drop_vars([name for name in found.coords if name not in found.dims])
    return found.transpose(v.DETECTOR, v.AMP, "quantity")


def comparison_table(found: xr.Dataset) -> Table:
    """Return a comparison as a table to print."""
    from rich import box  # heavy, and only needed here
    from rich.table import Table

    shown = {
        "gain": ("gain (electron/adu)", 1.0),
        "noise": ("read noise (electron)", 1.0),
        "a_00": ("a_00 (1e-6/electron)", 1e6),
    }
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("quantity", "detector", "amp"):
        table.add_column(name, no_wrap=True)
    for name in ("truth", "recovered", "error bar", "pull"):
        table.add_column(name, justify="right")
    for name, (title, scale) in shown.items():
        part = found.sel(quantity=name).stack(row=(v.DETECTOR, v.AMP))
        values = [part[key].values * scale for key in ("truth", "recovered", "sigma")]
        for i, (detector, amp) in enumerate(part["row"].values):
            pull = f"{float(part['pull'][i]):+.2f}"
            numbers = [f"{column[i]:.4f}" for column in values]
            table.add_row(title if i == 0 else "", str(detector), str(amp), *numbers, pull)
        table.add_section()
    return table
