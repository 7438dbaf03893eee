"""Run the measurements and write the page."""

from __future__ import annotations

import argparse
import importlib
import platform
import sys
import time
from pathlib import Path

from tests.validation.rows import BESIDE, Row

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "validation.md"
TOPICS = {
    "photon_transfer": "Identities, reference values and closed loops of the photon transfer curve",
    "night": "A simulated night of a mosaic camera against its truth",
    "flats": "Scales of flats, their errors, and levels of real cameras",
    "background": "Backgrounds in bins: pulls, histograms, errors of pixels, independent packages",
    "sky_map": "Sky maps: positions, projections and footprints of a real camera",
    "tract": "Bins and fields of a tract: gradients, seams, pulls, and the reference beside",
    "matching": "Backgrounds of visits matched on a tract: closed loops, a galaxy's halo, Montage",
    "tract_flow": "A galaxy's tract from frames to coadds; artifacts rejected on the way",
    "flats_combined": "Twenty flats of a large detector, combined",
    "flat_flow": "Raw flats to frames divided by them, a simulated night against its truth",
    "sky_frames": "Object masks, skies across the focal plane and sky frames against their truth",
    "sky_passes": "Sky frames of objects found twice, and by turns with the skies of exposures",
    "sky_scales": "Scales of sky frames, and skies subtracted, against their truth",
    "coadds": "Coadds and rejected artifacts: real visits, simulated visits, SWarp",
    "dcr": "Skies in sub-bands and templates of any refraction, against truth",
    "dcr_flow": "Chromatic coadds from frames to templates; the headers of real visits",
    "dcr_detectors": "Skies in sub-bands from turned and dithered detectors, warped",
    "dcr_geometry": "Sub-bands of real visits and real band-passes",
    "dcr_peers": "Skies in sub-bands of stars that an independent package refracts",
    "detrend": "Detrended frames against the light that fell",
    "psf": "Point-spread functions: coadds, matched images, noise",
    "warps": "Warps: positions, stars, noise, real exposures of one sky",
    "emva": "A real 12-bit CCD (EMVA 1288 reference set), through the command line",
    "lsstcam": "338 measured pairs of one LSST Camera amplifier, through the solver",
    "covariances": "Measured covariances of other sensors",
    "peers": "Flats of an independent package",
    "pulls": "Pulls over 100 simulated sets of flats, from pixels to parameters",
    "resume": "Killed runs, resumed",
    "schedulers": "The same products on every scheduler",
    "faults": "Bad input and damaged stores",
    "scale": "Plans and memory at the size of a large survey",
    "speed": "Speed, one core, ratios measured side by side in one run",
}
VERDICTS = {True: "met", False: "**falls short**", None: "not measured"}
INTRODUCTION = """# Validation

Every promised number: target, measured, and the command that measures it. A row that falls
short stays here as it is. Written by `make validate` on {date}, Python {python}, {machine}.
Rows on real data need the folder `../shared/data` beside the checkout.
"""


def table(topic: str, title: str, rows: list[Row], seconds: float) -> str:
    """Return the section of one topic."""
    lines = [
        f"## {title}",
        "",
        f"`python -m tests.validation {topic}` ({seconds:.0f} s)",
        "",
        "| what | target | measured | |",
        "|---|---|---|---|",
    ]
    for row in rows:
        verdict = "" if row.target == BESIDE else VERDICTS[row.met]
        cells = (row.what, row.target, row.measured, verdict)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure the named topics, or all of them and write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("topics", nargs="*", choices=[[], *TOPICS])
    chosen = parser.parse_args().topics
    sections, short = [], 0
    for topic in chosen or TOPICS:
        started = time.perf_counter()
        rows = importlib.import_module(f"tests.validation.{topic}").measure()
        section = table(topic, TOPICS[topic], rows, time.perf_counter() - started)
        print(section, flush=True)
        sections.append(section)
        short += sum(row.met is not None and not row.met for row in rows)
    if not chosen:
        introduction = INTRODUCTION.format(
            date=time.strftime("%Y-%m-%d"),
            python=platform.python_version(),
            machine=platform.machine(),
        )
        PAGE.write_text("\n".join([introduction, *sections]))
    print(f"{short} rows fall short" if short else "every row is met")
    return 0


if __name__ == "__main__":
    sys.exit(main())
