"""Chromatic coadds through all flows: frames of rotated, dithered detectors, to templates.

Templates are judged on exposures that were never written, without noise, at zenith distances from
42 to 57 degree: rms within 8 px of stars, of the template over that of the plain coadd.
"""

from __future__ import annotations

import csv
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyloom.algorithms import vocabulary as v
from skyloom.flows import dcr_coadds
from skyloom.storage.camera import load_camera
from tests.storage.test_observing import PLACE, TRAPS, header_of, read
from tests.validation.rows import Row, at_most, between

# The scenes of the flows' tests import each other by name.
sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

if TYPE_CHECKING:
    from skyloom.storage.store import Store
    from tests.flows import dcr_night
else:
    import dcr_night

__all__ = ["measure"]

BLOCK = {v.FILTER: dcr_night.FILTER, v.PATCH: "0-0"}
HELD_OUT = (2, 23)
VISITS = 24


def measure() -> list[Row]:
    """Return the rows of the page."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        return [*_steady(place), *_changing(place), *_measured(place), *_headers()]


def _solved(folder: Path, made: dcr_night.DcrNight, *, psf: bool = False) -> Store:
    folder.mkdir()
    store = dcr_night.make_coadds(folder, made, HELD_OUT, psf=psf)
    chosen = {"bands": {dcr_night.FILTER: dcr_night.BAND}, "held_out": HELD_OUT}
    assert dcr_coadds(store, chosen).run(progress=False).exit_code == 0
    return store


def _steady(folder: Path) -> list[Row]:
    made = dcr_night.dcr_night(dcr_night.small_camera(), visits=VISITS)
    store = _solved(folder / "steady", made)
    judged = dcr_night.judge(made, store)
    found, true = dcr_night.moments(made, store)
    quality = store.records("dcr")
    record = next(iter(quality.values())).quality
    scores = [
        store.read_block("dcr_scores", {v.VISIT: visit, v.PATCH: "0-0"}) for visit in HELD_OUT
    ]
    energy = [float((score["dipole_template"] / score["dipole_coadd"]) ** 2) for score in scores]
    each = judged.residual_template / judged.residual_coadd
    return [
        between(
            "simulated night to template: residual over that of the plain coadd, 4 exposures",
            judged.ratio, float("-inf"), 0.15,
        ),
        Row("the same, each exposure", "—", ", ".join(f"{one:.3f}" for one in each), True),
        between(
            f"false detections at 5 sigma over the plain coadd's {judged.false_coadd}",
            judged.false_template / judged.false_coadd, float("-inf"), 0.2,
        ),
        between("chi² per pixel of objects, median visit", float(record["chi2"]), 0.75, 1.6),
        Row("how the solution ended", "CONVERGED", str(record["status"]),
            record["status"] == "CONVERGED"),
        at_most(
            f"first spectral moment of {found.size} stars, largest error, of the band",
            float(np.abs(found - true).max()), 0.01,
        ),
        between(
            "dipole energy of visits held out, template over plain coadd, mean",
            float(np.nanmean(energy)), float("-inf"), 0.15,
        ),
    ]  # fmt: skip


def _changing(folder: Path) -> list[Row]:
    made = dcr_night.dcr_night(dcr_night.small_camera(), visits=VISITS, seeing_spread=0.12)
    store = _solved(folder / "changing", made)
    block = store.read_block("dcr", BLOCK)
    widths = block["psf_fwhm"].values[block["used"].values]
    judged, coadd = _best(made, store, float(widths.min()), widths)
    left, *found = _scored(store)
    return [
        between(
            f"the same, FWHM of visits {widths.min():.1f} to {widths.max():.1f} px: residual over "
            f"that of the plain coadd (both at the FWHM that is best for it, {coadd:.1f} px)",
            judged.ratio, float("-inf"), 0.15,
        ),
        between(
            f"false detections over the plain coadd's {judged.false_coadd}",
            judged.false_template / judged.false_coadd, float("-inf"), 0.2,
        ),
        between(
            "chi² per pixel of objects, median visit",
            float(np.median(block["chi2"].values[block["used"].values])), 0.75, 1.6,
        ),
        between(
            "residual of templates at the seeing of visits held out over that of the plain coadd "
            "brought to it, as the flow scores them",
            left, float("-inf"), 0.15,
        ),
        between(
            f"false detections of these over the plain coadd's {found[1]}",
            found[0] / found[1], float("-inf"), 0.2,
        ),
    ]  # fmt: skip


def _scored(store: Store) -> tuple[float, int, int]:
    """Return the residual of templates in visits held out over that of the plain coadd, as the flow
    scores them, and false detections of both."""
    scores = [
        store.read_block("dcr_scores", {v.VISIT: visit, v.PATCH: "0-0"}) for visit in HELD_OUT
    ]
    left, found = (
        [[float(score[f"{name}_{of}"]) for score in scores] for of in ("template", "coadd")]
        for name in ("residual", "detections")
    )
    ratio = np.hypot.reduce(left[0]) / np.hypot.reduce(left[1])
    return float(ratio), int(sum(found[0])), int(sum(found[1]))


def _best(
    made: dcr_night.DcrNight, store: Store, template: float, widths: np.ndarray
) -> tuple[dcr_night.Judged, float]:
    """Return the comparison at the seeing that flatters the plain coadd most, and that seeing."""
    tried = {
        float(width): dcr_night.judge(made, store, template, float(width))
        for width in np.linspace(widths.min(), widths.max(), 7)
    }
    best = min(tried, key=lambda width: float((tried[width].residual_coadd ** 2).sum()))
    return tried[best], best


def _measured(folder: Path) -> list[Row]:
    """Return what is reached if nobody wrote the seeing down: measured across the vertical."""
    camera = dcr_night.small_camera(seeing=False)
    made = dcr_night.dcr_night(camera, visits=VISITS, seeing_spread=0.12)
    store = _solved(folder / "measured", made, psf=True)
    block = store.read_block("dcr", BLOCK)
    used = block["used"].values
    seeing = made.night.plan["seeing"].values / dcr_night.PIXEL
    true = np.array([seeing[int(visit) - 1] for visit in block[v.VISIT].values[used]])
    widths = block["psf_fwhm"].values[used]
    judged, _ = _best(made, store, float(true.min()), true)
    return [
        at_most(
            "seeing measured across the vertical: largest relative error of the FWHM",
            float(np.abs(widths / true - 1).max()), 0.1, form=".2g",
        ),
        between(
            "residual over that of the plain coadd with it", judged.ratio, float("-inf"), 0.15
        ),
        between(
            "the same of visits held out at their own measured seeing, as the flow scores them",
            _scored(store)[0], float("-inf"), 0.15,
        ),
    ]  # fmt: skip


def _headers() -> list[Row]:
    """Return whether the traps of the headers of 12 real DECam visits are caught."""
    rows = list(csv.DictReader(PLACE.read_text().splitlines()))
    cameras = load_camera("decam"), load_camera("decam").model_copy(update={"observatory": None})
    caught, zenith = [0, 0], []
    for row in rows:
        for index, camera in enumerate(cameras):
            values = read(camera, header_of(row)).values
            caught[index] += values["condition_flags"] == TRAPS
            zenith.append(90 - values["altitude"] - float(row["zd_calc_midexp_deg"]))
    return [
        Row("real DECam headers: unit of PRESSURE and sign of OBS-LONG caught, observatory known",
            f"{len(rows)} of {len(rows)}", f"{caught[0]} of {len(rows)}", caught[0] == len(rows)),
        Row("the same from the headers alone", f"{len(rows)} of {len(rows)}",
            f"{caught[1]} of {len(rows)}", caught[1] == len(rows)),
        at_most("zenith distance against astropy without refraction, largest difference, degree",
                float(np.abs(zenith).max()), 0.03, form=".2g"),
    ]  # fmt: skip
