"""The report of photon transfer: one self-contained page, the worst first.

`write_report` makes it from a store, `render_report` from datasets. The page is made from
products and records alone, so it can be made again at any time, also of a run that failed half
way; whatever is missing is shown as missing.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
import yaml
from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import AMP, DETECTOR, EXPOSURE, PairStatus
from skyloom.flows.report import record_tables, tables
from skyloom.flows.report.blocks import (
    amplifier_overview,
    detector_block,
    measured_pairs,
    with_detectors,
)
from skyloom.flows.report.codes import PAIR_STATUSES
from skyloom.flows.report.findings import Finding, Thresholds, attention, find_offenders
from skyloom.flows.report.page import Page, render_page
from skyloom.flows.report.sections import (
    choose_sections,
    detector_panels,
    detector_section,
    overview_images,
)

if TYPE_CHECKING:
    from skyloom.storage.camera import Camera
    from skyloom.storage.records import Record
    from skyloom.storage.store import Store

__all__ = ["ReportOptions", "render_report", "write_report"]

_MOST_ROWS: Final = 200
_MOST_OFFENDERS: Final = 30
STEPS: Final = ("ingest", "dark_pairs", "flat_pairs", "ptc", "brighter_fatter")


class ReportOptions(Parameters):
    """What a report shows of a large camera, and what it calls an offender."""

    thresholds: Thresholds = Field(Thresholds(), description="limits for worst offenders")
    detailed_detectors: int = Field(
        9, ge=0, description="most detectors with a section of their own, the worst first"
    )
    detailed_amplifiers: int = Field(
        48, ge=0, description="most amplifiers with all their figures, the worst first"
    )


def render_report(
    ptc: xr.Dataset,
    *,
    kernel: xr.Dataset | None = None,
    dark_pairs: xr.Dataset | None = None,
    exposures: xr.Dataset | None = None,
    records: Iterable[Record] | None = None,
    camera: Camera | None = None,
    configuration: Mapping[str, Any] | None = None,
    title: str = "Photon transfer curves",
    options: ReportOptions | None = None,
) -> str:
    """Return the report of photon transfer as one self-contained HTML page.

    Parameters
    ----------
    ptc : Dataset, ([detector,] pair, amp, lag_y, lag_x)
        Solved photon transfer; may be lazy, then one detector at a time is read. Variables that
        are missing are shown as missing.
    kernel : Dataset, ([detector,] amp, kernel_y, kernel_x), optional
        Brighter-fatter kernels.
    dark_pairs : Dataset, (pair, detector, amp), optional
        Pairs of darks: their noise is compared with that of the fit.
    exposures : Dataset, (exposure), optional
        With ``exposure_status``: why exposures are in no pair.
    records : iterable of Record, optional
        Of all steps: failures, run times, versions.
    camera : Camera, optional
        For the place of amplifiers in the focal plane.
    configuration : mapping, optional
        What the products were made with.
    title : str
        Title of the page.
    options : ReportOptions, optional
        Thresholds, and how much detail of how many amplifiers is shown.

    Returns
    -------
    str
        HTML without any reference to another file.

    Examples
    --------
    >>> page = render_report(xr.Dataset(coords={"amp": ["C00"]}), title="Nothing yet")
    >>> page[:15], "Nothing yet" in page, "NO_DATA" in page
    ('<!DOCTYPE html>', True, True)
    """
    with np.errstate(all="ignore"):  # what is not finite is shown as such
        page = _page(ptc, kernel, dark_pairs, exposures, records, camera, options)
    page.title = title
    if configuration:
        page.configuration = yaml.safe_dump(
            _plain(configuration), sort_keys=False, allow_unicode=True
        )
    now = dt.datetime.now(dt.UTC)
    page.footer = f"Written by skyloom {version('skyloom')} on {now:%Y-%m-%d at %H:%M} UTC."
    return render_page(page)


def _page(
    ptc: xr.Dataset,
    kernel: xr.Dataset | None,
    dark_pairs: xr.Dataset | None,
    exposures: xr.Dataset | None,
    records: Iterable[Record] | None,
    camera: Camera | None,
    options: ReportOptions | None,
) -> Page:
    options = options or ReportOptions()
    known = list(records or ())
    ptc = measured_pairs(with_detectors(ptc))
    overview = amplifier_overview(ptc)
    amplifiers = _amplifiers(ptc, camera)
    overview = _without_strangers(overview, amplifiers)
    if dark_pairs is not None and (noise := tables.dark_noise(dark_pairs, overview)) is not None:
        overview = overview.assign(dark_noise=noise)
    cells = [(detector, amp) for detector, amps in amplifiers.items() for amp in amps]
    grouped = attention(
        [f for f in find_offenders(overview, options.thresholds) if f.amp in amplifiers[f.detector]]
    )
    problems = record_tables.problem_rows(known)
    page = Page("", _subtitle(ptc, camera))
    page.tiles = _tiles(overview, cells, grouped, known)
    page.problems, page.more_problems = problems[:_MOST_ROWS], max(0, len(problems) - _MOST_ROWS)
    page.offenders = list(grouped.values())[:_MOST_OFFENDERS]
    page.more_offenders = max(0, len(grouped) - _MOST_OFFENDERS)
    page.thresholds = _threshold_rows(options.thresholds)
    page.overview = overview_images(overview, camera)
    page.summary = tables.summary_rows(overview, cells)
    page.reasons = _reason_rows(overview)
    page.exposures, page.no_exposures = _exposures(exposures)
    choice = choose_sections(
        amplifiers,
        list(grouped),
        most_detectors=options.detailed_detectors,
        most_amplifiers=options.detailed_amplifiers,
    )
    page.detector_note = choice.note
    if len(choice.detectors) < len(amplifiers):
        page.panels = detector_panels(ptc, amplifiers)
    page.anchors = {name: f"detector-{place}" for place, name in enumerate(choice.detectors)}
    page.detectors = [
        detector_section(detector_block(ptc, name, amplifiers[name]), anchor, kernel, choice)
        for name, anchor in page.anchors.items()
    ]
    page.steps, page.versions = record_tables.step_rows(known), record_tables.version_rows(known)
    page.warnings = record_tables.warning_rows(known)[:_MOST_ROWS]
    return page


def write_report(
    store: Store, path: str | os.PathLike[str], *, options: ReportOptions | None = None
) -> Path:
    """Write the report of a store's photon transfer products.

    Parameters
    ----------
    store : Store
        A store in which the flow ``photon_transfer`` was run, as far as it came.
    path : str or path
        The HTML file to write.
    options : ReportOptions, optional

    Returns
    -------
    Path
        The file.

    Raises
    ------
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> from skyloom.storage import create_store
    >>> import tempfile
    >>> store = create_store("memory://doctest-report", "generic")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_report(store, Path(folder) / "report.html").name
    'report.html'
    """
    products: dict[str, xr.Dataset] = {
        name: store[name] for name in ("ptc", "brighter_fatter", "dark_pairs") if name in store
    }
    configuration = store.attrs("ptc").get("configuration") if "ptc" in store else None
    records = [
        record
        for step in dict.fromkeys([*STEPS, *store.steps()])
        for record in store.records(step).values()
    ]
    page = render_report(
        _with_model(products.get("ptc", _nothing(store.camera)), configuration),
        kernel=products.get("brighter_fatter"),
        dark_pairs=products.get("dark_pairs"),
        exposures=_stored_exposures(store),
        records=records,
        camera=store.camera,
        configuration=configuration,
        title=f"Photon transfer of {store.camera.name}",
        options=options,
    )
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page, encoding="utf-8")
    return target


def _nothing(camera: Camera) -> xr.Dataset:
    return xr.Dataset(
        coords={DETECTOR: camera.detector_names(), AMP: camera.amplifier_names()}
    )  # every amplifier is shown as not measured


def _with_model(ptc: xr.Dataset, configuration: Mapping[str, Any] | None) -> xr.Dataset:
    """Return the product with the name of the model it was fitted with."""
    model = ((configuration or {}).get("solve") or {}).get("model")
    return ptc.assign_attrs(model=model) if model and "model" not in ptc.attrs else ptc


def _stored_exposures(store: Store) -> xr.Dataset | None:
    """Return why exposures are in no pair, as the flow keeps it beside its pairs."""
    products = [name for name in ("flat_pairs", "dark_pairs") if name in store]
    found: dict[int, int] = {}
    for product in products:
        for name, status in store.attrs(product).get("unpaired_exposures", {}).items():
            found[int(name)] = int(PairStatus[status])
    if not products:
        return None
    codes = np.array(list(found.values()), np.uint8)
    return xr.Dataset({"exposure_status": (EXPOSURE, codes)}, coords={EXPOSURE: list(found)})


def _amplifiers(ptc: xr.Dataset, camera: Camera | None) -> dict[str, list[str]]:
    """Return the amplifiers of each detector; without a camera all have all."""
    every = [str(name) for name in ptc[AMP].to_numpy()]
    known = set(camera.detector_names()) if camera else set()
    found = {}
    for detector in map(str, ptc[DETECTOR].to_numpy()):
        names = camera.amplifier_names(detector) if camera and detector in known else every
        found[detector] = [name for name in names if name in every]
    return found


def _without_strangers(overview: xr.Dataset, amplifiers: Mapping[str, list[str]]) -> xr.Dataset:
    """Return the overview without amplifiers that a detector does not have."""
    flags = overview["amp_flag"].transpose(DETECTOR, AMP).to_numpy().copy()
    counts = overview["status_count"].to_numpy().copy()
    for row, names in enumerate(amplifiers.values()):
        strange = [name not in names for name in map(str, overview[AMP].to_numpy())]
        flags[row, strange] = 0
        counts[row, strange] = 0
    return overview.assign(
        amp_flag=overview["amp_flag"].copy(data=flags),
        status_count=overview["status_count"].copy(data=counts),
    )


def _subtitle(ptc: xr.Dataset, camera: Camera | None) -> str:
    parts = [camera.description or camera.name] if camera else []
    parts += [f"model {ptc.attrs['model']}"] if "model" in ptc.attrs else []
    return ", ".join(parts)


def _tiles(
    overview: xr.Dataset,
    cells: Sequence[tuple[str, str]],
    grouped: Mapping[tuple[str, str], Sequence[Finding]],
    records: Sequence[Record],
) -> list[tuple[str, str, str]]:
    solved = np.isfinite(overview["gain"].to_numpy())
    used, pairs = int(overview["pairs_used"].sum()), int(overview["pairs"].sum())
    failed = sum(record.status != "done" for record in records)
    names = {detector for detector, _ in cells}
    return [
        ("detectors", str(len(names)), ""),
        ("amplifiers", str(len(cells)), f"{int(solved.sum())} solved"),
        ("pairs × amplifiers", f"{pairs}", f"{used} used"),
        ("beyond a threshold", str(len(grouped)), "amplifiers"),
        ("blocks not done", str(failed), f"of {len(records)}" if records else "no records"),
        ("gain, median", _median(overview["gain"]), "electron / adu"),
        ("noise, median", _median(overview["noise"]), "electron"),
    ]


def _median(values: xr.DataArray) -> str:
    finite = values.to_numpy()[np.isfinite(values.to_numpy())]
    return f"{np.median(finite):.3f}" if finite.size else "–"


def _threshold_rows(thresholds: Thresholds) -> list[tuple[str, str]]:
    return [
        (meaning, f"{getattr(thresholds, name):g}") for name, _, meaning in thresholds.describe()
    ]


def _reason_rows(overview: xr.Dataset) -> list[tuple[str, ...]]:
    meanings = {code.name: PAIR_STATUSES[code][0] for code in PairStatus}
    return [
        (name, str(count), f"{100 * fraction:.1f} %", meanings.get(name, ""))
        for name, count, fraction in tables.reason_counts(overview)
    ]


def _exposures(exposures: xr.Dataset | None) -> tuple[list[tuple[str, str, str]], str]:
    if exposures is None:
        return [], "It was not recorded which exposures are in no pair."
    rows = [(name, str(count), ids) for name, count, ids in tables.exposure_rows(exposures)]
    return rows, "None: every flat is in a pair."


def _plain(value: Any) -> Any:
    """Return a configuration as YAML knows it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(found) for found in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)
