"""The report of photon transfer: one self-contained page, the worst first.

`write_report` makes it from a store, `render_report` from datasets. The page is made from
products and records alone, so it can be made again at any time, also of a run that failed half
way; whatever is missing is shown as missing.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import xarray as xr
import yaml
from matplotlib.figure import Figure
from pydantic import Field

from skyloom.algorithms.parameters import Parameters
from skyloom.algorithms.vocabulary import AMP, DETECTOR, AmplifierFlag, PairStatus
from skyloom.flows.report import tables
from skyloom.flows.report.blocks import (
    amplifier_overview,
    detector_block,
    flag_names,
    with_detectors,
)
from skyloom.flows.report.codes import AMPLIFIER_FLAGS, PAIR_STATUSES
from skyloom.flows.report.covariances import covariance_figure
from skyloom.flows.report.curves import curves_figure, detectors_figure, photon_transfer_figure
from skyloom.flows.report.findings import Finding, Thresholds, attention, find_offenders
from skyloom.flows.report.focal_plane import focal_plane, focal_plane_figure
from skyloom.flows.report.kernels import kernel_figure
from skyloom.flows.report.matrices import matrix_figure
from skyloom.flows.report.numbers import with_error
from skyloom.flows.report.overview import noise_figure, values_figure
from skyloom.flows.report.style import data_uri

if TYPE_CHECKING:
    from skyloom.storage.camera import Camera
    from skyloom.storage.records import Record
    from skyloom.storage.store import Store

__all__ = ["ReportOptions", "render_report", "write_report"]

_MOST_ROWS: Final = 200
_PANELS: Final = 28
STEPS: Final = ("ingest", "dark_pairs", "flat_pairs", "ptc", "brighter_fatter")


class ReportOptions(Parameters):
    """What a report shows of a large camera, and what it calls an offender."""

    thresholds: Thresholds = Field(Thresholds(), description="limits for worst offenders")
    detailed_detectors: int = Field(
        9, ge=0, description="most detectors with a section of their own, the worst first"
    )
    detailed_amplifiers: int = Field(
        16, ge=0, description="most amplifiers with all their figures, the worst first"
    )


@dataclass(frozen=True)
class Image:
    """A figure in the page."""

    uri: str
    text: str
    caption: str = ""


@dataclass(frozen=True)
class AmplifierSection:
    """One amplifier with all its figures."""

    name: str
    summary: str
    flags: str
    figures: Sequence[Image]
    open: bool


@dataclass(frozen=True)
class DetectorSection:
    """One detector: its curves, its rejected pairs, its worst amplifiers."""

    name: str
    anchor: str
    figures: Sequence[Image]
    rejected: Sequence[tuple[str, ...]]
    amplifiers: Sequence[AmplifierSection]


@dataclass
class _Page:
    """Everything the template shows."""

    title: str
    subtitle: str
    tiles: Sequence[tuple[str, str, str]] = ()
    problems: Sequence[tuple[str, ...]] = ()
    more_problems: int = 0
    offenders: Sequence[Sequence[Finding]] = ()
    more_offenders: int = 0
    thresholds: Sequence[tuple[str, str]] = ()
    overview: Sequence[Image] = ()
    summary: Sequence[Any] = ()
    reasons: Sequence[tuple[str, ...]] = ()
    exposures: Sequence[tuple[str, ...]] = ()
    no_exposures: str = ""
    panels: Sequence[Image] = ()
    detectors: list[DetectorSection] = field(default_factory=list)
    detector_note: str = ""
    steps: Sequence[tuple[str, ...]] = ()
    versions: Sequence[tuple[str, str]] = ()
    warnings: Sequence[tuple[str, str, int]] = ()
    configuration: str = ""
    footer: str = ""
    summary_columns = tables.SUMMARY_COLUMNS
    contents = (
        ("attention", "Attention"),
        ("overview", "Overview"),
        ("amplifiers", "Amplifiers"),
        ("pairs", "Pairs and exposures"),
        ("detectors", "Detectors"),
        ("provenance", "Provenance"),
        ("codes", "Codes"),
    )
    pair_codes = tuple(
        (code.value, code.name, "; ".join(filter(None, PAIR_STATUSES[code]))) for code in PairStatus
    )
    amplifier_codes = tuple(
        (bit.value, bit.name, "; ".join(AMPLIFIER_FLAGS[bit])) for bit in AMPLIFIER_FLAGS
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
    options = options or ReportOptions()
    known = list(records or ())
    ptc = with_detectors(ptc)
    overview = amplifier_overview(ptc)
    amplifiers = _amplifiers(ptc, camera)
    overview = _without_strangers(overview, amplifiers)
    if dark_pairs is not None and (noise := tables.dark_noise(dark_pairs, overview)) is not None:
        overview = overview.assign(dark_noise=noise)
    cells = [(detector, amp) for detector, amps in amplifiers.items() for amp in amps]
    grouped = attention(
        [f for f in find_offenders(overview, options.thresholds) if f.amp in amplifiers[f.detector]]
    )
    problems = tables.problem_rows(known)
    page = _Page(title, _subtitle(ptc, camera))
    page.tiles = _tiles(overview, cells, grouped, known)
    page.problems, page.more_problems = problems[:_MOST_ROWS], max(0, len(problems) - _MOST_ROWS)
    page.offenders = list(grouped.values())[:50]
    page.more_offenders = max(0, len(grouped) - 50)
    page.thresholds = _threshold_rows(options.thresholds)
    page.overview = _overview_images(overview, camera)
    page.summary = tables.summary_rows(overview, cells)
    page.reasons = _reason_rows(overview)
    page.exposures, page.no_exposures = _exposures(exposures)
    _add_detectors(page, ptc, amplifiers, list(grouped), kernel, options)
    page.steps, page.versions = tables.step_rows(known), tables.version_rows(known)
    page.warnings = tables.warning_rows(known)[:_MOST_ROWS]
    if configuration:
        page.configuration = yaml.safe_dump(
            _plain(configuration), sort_keys=False, allow_unicode=True
        )
    now = datetime.datetime.now(datetime.UTC)
    page.footer = f"Written by skyloom {version('skyloom')} on {now:%Y-%m-%d at %H:%M} UTC."
    return _environment().get_template("photon_transfer.html").render(page=page)


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
    attrs = store.attrs("ptc") if "ptc" in store else {}
    records = [
        record
        for step in dict.fromkeys([*STEPS, *store.steps()])
        for record in store.records(step).values()
    ]
    page = render_report(
        products.get("ptc", _nothing(store.camera)),
        kernel=products.get("brighter_fatter"),
        dark_pairs=products.get("dark_pairs"),
        exposures=_stored_exposures(store),
        records=records,
        camera=store.camera,
        configuration=attrs.get("configuration"),
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


def _stored_exposures(store: Store) -> xr.Dataset | None:
    """Return why exposures are in no pair, as the flow keeps it beside its pairs."""
    for product in ("flat_pairs", "ptc"):
        status = store.attrs(product).get("exposure_status") if product in store else None
        if status:
            ids = [int(name) for name in status]
            codes = np.array(list(status.values()), np.uint8)
            return xr.Dataset(
                {"exposure_status": ("exposure", codes)}, coords={"exposure": ids}
            )
    return None


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


def _exposures(exposures: xr.Dataset | None) -> tuple[list[tuple[str, ...]], str]:
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


def _image(figure: Figure, text: str, caption: str = "", *, dpi: int = 140) -> Image:
    return Image(data_uri(figure, dpi=dpi), text, caption)


def _overview_images(overview: xr.Dataset, camera: Camera | None) -> list[Image]:
    plane = focal_plane(overview, camera)
    schematic = "" if plane.unit else " Detectors stand side by side: their places are not known."
    return [
        _image(
            focal_plane_figure(overview, plane),
            "Focal plane maps of gain, noise, a, turn-off, chi-squared and used pairs",
            "Every amplifier at its place in the focal plane; hatched: no value." + schematic,
        ),
        _image(
            values_figure(overview),
            "Gain, noise, a and turn-off of every amplifier",
            "Every amplifier with its error bar; one colour and marker for each place in a "
            "detector. Red crosses: no value.",
        ),
        _image(
            noise_figure(overview),
            "Noise of the fit against measured noise, gain against a, chi-squared",
        ),
    ]


def _add_detectors(
    page: _Page,
    ptc: xr.Dataset,
    amplifiers: Mapping[str, list[str]],
    worst: Sequence[tuple[str, str]],
    kernel: xr.Dataset | None,
    options: ReportOptions,
) -> None:
    """Add sections of the worst detectors, and a small panel for each if they are many."""
    names = list(amplifiers)
    cells = [(detector, amp) for detector in names for amp in amplifiers[detector]]
    if len(names) > options.detailed_detectors:
        order = list(dict.fromkeys([detector for detector, _ in worst] + names))
        sections = order[: options.detailed_detectors]
        page.detector_note = (
            f"Residuals of the variance of all {len(names)} detectors, a colour for each "
            f"amplifier; below, the {len(sections)} worst detectors."
        )
        page.panels = _panels(ptc, amplifiers)
    else:
        sections = names
    inside = [cell for cell in dict.fromkeys([*worst, *cells]) if cell[0] in sections]
    detailed = set(inside[: options.detailed_amplifiers])
    if len(detailed) < len(cells):
        page.detector_note += (
            f" All figures are shown of the {len(detailed)} worst amplifiers of {len(cells)}."
        )
    first = inside[0] if inside else None
    for index, name in enumerate(sections):
        block = detector_block(ptc, name, amplifiers[name])
        page.detectors.append(
            DetectorSection(
                name,
                f"detector-{index}",
                _detector_images(block, _kernel_of(kernel, name)),
                tables.rejected_rows(block),
                [
                    _amplifier_section(block, place, opened=first == (name, amp))
                    for place, amp in enumerate(map(str, block[AMP].to_numpy()))
                    if (name, amp) in detailed
                ],
            )
        )


def _panels(ptc: xr.Dataset, amplifiers: Mapping[str, list[str]]) -> list[Image]:
    needed = ["mean", "variance", "covariance_model", "used", "amp_flag", "pair_status"]
    small = ptc[[name for name in needed if name in ptc]].isel(lag_y=slice(1), lag_x=slice(1))
    names = list(amplifiers)
    images = []
    for start in range(0, len(names), _PANELS):
        chosen = names[start : start + _PANELS]
        blocks = [detector_block(small, name, amplifiers[name]) for name in chosen]
        text = f"Residuals of detectors {chosen[0]} to {chosen[-1]}"
        images.append(_image(detectors_figure(blocks), text, dpi=110))
    return images


def _kernel_of(kernel: xr.Dataset | None, detector: str) -> xr.Dataset | None:
    if kernel is None or "detector_kernel" not in kernel:
        return None
    if DETECTOR not in kernel.dims:
        return kernel.compute()
    names = [str(name) for name in kernel[DETECTOR].to_numpy()]
    return kernel.isel({DETECTOR: names.index(detector)}).compute() if detector in names else None


def _detector_images(block: xr.Dataset, kernel: xr.Dataset | None) -> list[Image]:
    name = str(block[DETECTOR].item())
    images = [
        _image(
            curves_figure(block),
            f"Variance over mean of every amplifier of {name}",
            "Variance over mean with the model; the dashed line is the turn-off, open markers are "
            "pairs that are not used.",
        )
    ]
    if kernel is not None:
        images.append(
            _image(
                kernel_figure(kernel),
                f"Brighter-fatter kernel of {name}",
                "Brighter-fatter kernel.",
            )
        )
    return images


def _amplifier_section(block: xr.Dataset, place: int, *, opened: bool) -> AmplifierSection:
    amplifier = block.isel({AMP: place})
    name = str(amplifier[AMP].item())
    value = {key: float(amplifier[key].item()) for key in ("gain", "gain_sigma", "noise", "noise_sigma")}  # fmt: skip
    summary = (
        f"gain {with_error(value['gain'], value['gain_sigma'])} electron/adu, "
        f"noise {with_error(value['noise'], value['noise_sigma'])} electron"
    )
    return AmplifierSection(
        name,
        summary,
        ", ".join(flag_names(int(amplifier["amp_flag"].item()))),
        [
            _image(
                photon_transfer_figure(amplifier),
                f"Photon transfer curve of {name}",
                "Variance of one flat against its mean, and the model (dotted above the turn-off). "
                "Residuals beyond the edge are arrow heads.",
            ),
            _image(
                covariance_figure(amplifier),
                f"Covariances of {name} against flux",
                "Covariances with neighbours at (lag x, lag y) and the model; open: not used.",
            ),
            _image(
                matrix_figure(amplifier),
                f"Matrix a of {name} and the quality of its fit",
                "The matrix a, its fall with distance, its cumulative sum (0 if charge is "
                "conserved), χ² by lag and by flux with its expected scatter, and the bias of the "
                "simple estimate of a.",
            ),
        ],
        opened,
    )


def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("skyloom.flows.report"), autoescape=True, undefined=StrictUndefined
    )
