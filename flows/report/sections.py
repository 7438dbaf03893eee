"""Sections of the photon transfer report: figures and rows of all, of a detector, of an amplifier.

A camera of many detectors gets one small panel for each; only the worst have sections of their
own, so that a page stays one that can be read and sent around.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from skyloom.algorithms.vocabulary import AMP, DETECTOR, LAG_X, LAG_Y
from skyloom.flows.report import tables
from skyloom.flows.report.blocks import detector_block, flag_names
from skyloom.flows.report.covariances import covariance_figure
from skyloom.flows.report.curves import photon_transfer_figure
from skyloom.flows.report.focal_plane import focal_plane, focal_plane_figure
from skyloom.flows.report.kernels import kernel_figure
from skyloom.flows.report.matrices import matrix_figure
from skyloom.flows.report.numbers import with_error
from skyloom.flows.report.overview import noise_figure, values_figure
from skyloom.flows.report.small_curves import curves_figure, detectors_figure
from skyloom.flows.report.style import data_uri

if TYPE_CHECKING:
    from skyloom.storage.camera import Camera

__all__ = [
    "AmplifierSection",
    "Choice",
    "DetectorSection",
    "Image",
    "choose_sections",
    "detector_panels",
    "detector_section",
    "drawn_image",
    "overview_images",
]

Cell = tuple[str, str]

_PANELS: Final = 28


@dataclass(frozen=True)
class Image:
    """A figure in the page; without a URI it could not be drawn, and the caption says why."""

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


class Choice(NamedTuple):
    """Which detectors get sections of their own, and which amplifiers all their figures."""

    detectors: list[str]
    amplifiers: set[Cell]
    first: Cell | None
    note: str


def choose_sections(
    amplifiers: Mapping[str, Sequence[str]],
    worst: Sequence[Cell],
    *,
    most_detectors: int,
    most_amplifiers: int,
) -> Choice:
    """Choose what is shown in full, the worst first if not everything can be.

    Parameters
    ----------
    amplifiers : mapping of str to sequence
        Amplifiers of each detector.
    worst : sequence of (detector, amp)
        Those beyond a threshold, the worst first.
    most_detectors, most_amplifiers : int
        How many are shown in full.

    Examples
    --------
    >>> amplifiers = {"S0": ["A", "B"], "S1": ["A", "B"]}
    >>> choice = choose_sections(amplifiers, [("S1", "B")], most_detectors=1, most_amplifiers=1)
    >>> choice.detectors, choice.amplifiers
    (['S1'], {('S1', 'B')})
    """
    names = list(amplifiers)
    cells = [(detector, amp) for detector in names for amp in amplifiers[detector]]
    note = ""
    if len(names) > most_detectors:
        order = list(dict.fromkeys([detector for detector, _ in worst] + names))
        names = order[:most_detectors]
        note = (
            f"Residuals of the variance of all {len(amplifiers)} detectors, a colour for each "
            f"amplifier; below, the {len(names)} worst detectors."
        )
    inside = [cell for cell in dict.fromkeys([*worst, *cells]) if cell[0] in names]
    detailed = inside[:most_amplifiers]
    if len(detailed) < len(cells):
        note += f" All figures are shown of the {len(detailed)} worst amplifiers of {len(cells)}."
    return Choice(names, set(detailed), detailed[0] if detailed else None, note.strip())


def drawn_image(
    draw: Callable[..., Figure], *given: object, text: str, caption: str = "", dpi: int = 140
) -> Image:
    """Return a figure, or what kept it from being drawn: a report is not lost for one figure."""
    try:
        return Image(data_uri(draw(*given), dpi=dpi), text, caption)
    except Exception as error:
        return Image("", text, f"{type(error).__name__}: {error}")


def overview_images(overview: xr.Dataset, camera: Camera | None = None) -> list[Image]:
    """Return the figures of all amplifiers together.

    Parameters
    ----------
    overview : Dataset, (detector, amp)
        From `amplifier_overview`.
    camera : Camera, optional
        For the focal plane.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import amplifier_overview, with_detectors
    >>> overview = amplifier_overview(with_detectors(xr.Dataset(coords={"amp": ["A"]})))
    >>> len(overview_images(overview))
    3
    """
    plane = focal_plane(overview, camera)
    schematic = "" if plane.unit else " Detectors stand side by side: their places are not known."
    return [
        drawn_image(
            focal_plane_figure,
            overview,
            plane,
            text="Focal plane maps of gain, noise, a, turn-off, chi-squared and used pairs",
            caption="Every amplifier at its place in the focal plane; hatched: no value."
            + schematic,
        ),
        drawn_image(
            values_figure,
            overview,
            text="Gain, noise, a and turn-off of every amplifier",
            caption="Every amplifier with its error bar; one colour and marker for each place in a "
            "detector. Red crosses: no value.",
        ),
        drawn_image(
            noise_figure,
            overview,
            text="Noise of the fit against measured noise, gain against a, chi-squared",
        ),
    ]


def detector_panels(ptc: xr.Dataset, amplifiers: Mapping[str, Sequence[str]]) -> list[Image]:
    """Return figures with a small panel for each detector.

    Parameters
    ----------
    ptc : Dataset, (detector, pair, amp, ...)
        From `with_detectors`; may be lazy.
    amplifiers : mapping of str to sequence
        Amplifiers of each detector.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import with_detectors
    >>> ptc = with_detectors(xr.Dataset(coords={"amp": ["A"]}))
    >>> len(detector_panels(ptc, {"detector": ["A"]}))
    1
    """
    needed = ["mean", "variance", "covariance_model", "used", "amp_flag", "pair_status"]
    small = ptc.drop_vars([name for name in ptc.data_vars if name not in needed]).isel(
        {LAG_Y: slice(1), LAG_X: slice(1)}, missing_dims="ignore"
    )
    names = list(amplifiers)
    images = []
    for start in range(0, len(names), _PANELS):
        chosen = names[start : start + _PANELS]
        blocks = [detector_block(small, name, amplifiers[name]) for name in chosen]
        text = f"Residuals of detectors {chosen[0]} to {chosen[-1]}"
        images.append(drawn_image(detectors_figure, blocks, text=text, dpi=110))
    return images


def detector_section(
    block: xr.Dataset, anchor: str, kernel: xr.Dataset | None, choice: Choice
) -> DetectorSection:
    """Return the section of a detector.

    Parameters
    ----------
    block : Dataset, (pair, amp, lag_y, lag_x)
        From `detector_block`.
    anchor : str
        Name of the section within the page.
    kernel : Dataset, ([detector,] amp, kernel_y, kernel_x), optional
        Brighter-fatter kernels.
    choice : Choice
        Which amplifiers get all their figures.

    Examples
    --------
    >>> from skyloom.flows.report.blocks import with_detectors
    >>> block = detector_block(with_detectors(xr.Dataset(coords={"amp": ["A"]})), "detector")
    >>> section = detector_section(block, "d0", None, Choice(["detector"], set(), None, ""))
    >>> section.name, len(section.figures), len(section.amplifiers)
    ('detector', 1, 0)
    """
    name = str(block[DETECTOR].item())
    amps = [str(amp) for amp in block[AMP].to_numpy()]
    return DetectorSection(
        name,
        anchor,
        _detector_images(block, _kernel_of(kernel, name)),
        tables.rejected_rows(block),
        [
            _amplifier_section(block, place, opened=choice.first == (name, amp))
            for place, amp in enumerate(amps)
            if (name, amp) in choice.amplifiers
        ],
    )


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
        drawn_image(
            curves_figure,
            block,
            text=f"Variance over mean of every amplifier of {name}",
            caption="Variance over mean with the model; the dashed line is the turn-off, open "
            "markers are pairs that are not used.",
        )
    ]
    if kernel is not None:
        images.append(
            drawn_image(
                kernel_figure,
                kernel,
                text=f"Brighter-fatter kernel of {name}",
                caption="Brighter-fatter kernel; dotted: it did not pass its checks.",
            )
        )
    return images


def _amplifier_section(block: xr.Dataset, place: int, *, opened: bool) -> AmplifierSection:
    amplifier = block.isel({AMP: place})
    name = str(amplifier[AMP].item())
    gain, noise = (
        with_error(float(amplifier[key].item()), float(amplifier[f"{key}_sigma"].item()))
        for key in ("gain", "noise")
    )
    summary = f"gain {gain} electron/adu, noise {noise} electron"
    figures = [
        drawn_image(
            photon_transfer_figure,
            amplifier,
            text=f"Photon transfer curve of {name}",
            caption="Variance of one flat against its mean, and the model (dotted above the "
            "turn-off). Residuals beyond the edge are arrow heads.",
        )
    ]
    if np.isfinite(amplifier["covariance"].to_numpy()[:, 1:]).any():
        figures.append(
            drawn_image(
                covariance_figure,
                amplifier,
                text=f"Covariances of {name} against flux",
                caption="Covariances with neighbours at (lag x, lag y) and the model; open: not "
                "used.",
            )
        )
    if np.isfinite(amplifier["a"].to_numpy()).sum() > 1:
        figures.append(
            drawn_image(
                matrix_figure,
                amplifier,
                text=f"Matrix a of {name} and the quality of its fit",
                caption="The matrix a, its fall with distance, its cumulative sum (0 if charge is "
                "conserved), χ² by lag and by flux with its expected scatter, and how far "
                "C / (V µ) at one flux is off as an estimate of a.",
            )
        )
    flags = ", ".join(flag_names(int(amplifier["amp_flag"].item())))
    return AmplifierSection(name, summary, flags, figures, opened)
