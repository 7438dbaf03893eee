"""The page of the photon transfer report: everything its template shows, and the template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from skyloom.algorithms.vocabulary import PairStatus
from skyloom.flows.report import tables
from skyloom.flows.report.codes import AMPLIFIER_FLAGS, PAIR_STATUSES
from skyloom.flows.report.findings import Finding
from skyloom.flows.report.sections import DetectorSection, Image

__all__ = ["Page", "render_page", "render_template"]


@dataclass
class Page:
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
    anchors: dict[str, str] = field(default_factory=dict)
    detector_note: str = ""
    steps: Sequence[tuple[str, ...]] = ()
    versions: Sequence[tuple[str, str]] = ()
    warnings: Sequence[tuple[str, str, int]] = ()
    configuration: str = ""
    footer: str = ""
    kind = "Photon transfer"
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


def render_page(page: Page) -> str:
    """Return the HTML of a page; everything in it is escaped.

    Parameters
    ----------
    page : Page
        What is shown.

    Examples
    --------
    >>> html = render_page(Page("a < b", ""))
    >>> "<title>a &lt; b</title>" in html
    True
    """
    return render_template("photon_transfer.html", page)


def render_template(name: str, page: object) -> str:
    """Return the HTML that a template makes of a page; everything in it is escaped."""
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only needed here

    environment = Environment(
        loader=PackageLoader("skyloom.flows.report"), autoescape=True, undefined=StrictUndefined
    )
    return str(environment.get_template(name).render(page=page))
