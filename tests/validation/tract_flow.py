"""A tract with a galaxy through the flows of warps, matched backgrounds and coadds."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from skyloom.algorithms import vocabulary as v
from skyloom.flows import coadds, match_backgrounds, warps
from skyloom.flows.report.tracts import seams_of
from tests.validation.by_test import rows_of_tests
from tests.validation.rows import Row, between, within

# The scenes of the flows' tests import each other by name.
sys.path.insert(0, str(Path(__file__).parents[1] / "flows"))

if TYPE_CHECKING:
    from tests.flows.galaxy_tract import ORDER, GalaxyTract
else:
    from galaxy_tract import ORDER, GalaxyTract

__all__ = ["measure"]

SIDE, PATCH, BIN, MESH = 1800, 600, 60, 256
HALF = (0.45, 0.55)


def measure() -> list[Row]:
    """Return the rows of the page."""
    tract = GalaxyTract(SIDE, PATCH, BIN)
    with tempfile.TemporaryDirectory() as folder:
        rows = [*_matched(tract, Path(folder)), *_subtracted(tract, Path(folder))]
    return rows + rows_of_tests("tests/flows/test_artifacts_flow.py", jobs=1)


def _matched(tract: GalaxyTract, folder: Path) -> list[Row]:
    store = tract.make(folder / "matched")
    warps(store, {"sky_map": tract.sky_map, "psf": None}).run(progress=False)
    chosen = {"bin_size": BIN, "match": {"order": ORDER}}
    match_backgrounds(store, chosen).run(progress=False)
    coadds(store, {"coadd": {"statistic": "mean"}}).run(progress=False)
    match = store["background_match"].isel({v.FILTER: 0, v.TRACT: 0}).load()
    levels = tract.levels(store)
    joint, coverage = tract.joint_error(store, levels), tract.coverage(levels)
    errors = {visit: tract.reference_error(levels, visit) for visit in coverage}
    best = min(errors, key=lambda visit: errors[visit])
    halves = [visit for visit, share in coverage.items() if HALF[0] <= share <= HALF[1]]
    half = min(halves, key=lambda visit: errors[visit])
    blocks = {
        int(str(label).split("-")[1]): store.read_block(
            "coadd", {v.FILTER: "r", v.PATCH: str(label)}, lazy=True
        )
        for label in store.labels("coadd")[v.PATCH]
    }
    seams = seams_of(blocks, tract.tract)
    before, after = (float(match[f"overlap_rms_{when}"]) for when in ("before", "after"))
    what = f"20 visits of a tract, {SIDE} px, skies curved by 2 %"
    none = -np.inf
    return [
        between(f"{what}: rms in overlaps after matching over the noise of bins "
                f"({before:.3g} electron/s before, {after:.3g} after)",
                float(match["overlap_ratio_after"]), none, 1.3),
        within(f"{what}: flux of a galaxy's halo in the coadd over the truth",
               tract.halo(store), 1.0, 0.03),
        between(f"{what}: error of fields, all visits at once over the best reference (visit "
                f"{best}, {100 * coverage[best]:.0f} % of the tract)",
                joint / errors[best], none, 1.0),
        between(f"{what}: the same over the best reference that covers half (visit {half}, "
                f"{100 * coverage[half]:.0f} %)", joint / errors[half], none, 0.8),
        between(f"{what}: error of fields, noise of a bin", joint, none, 0.5),
        between(f"{what}: rms difference of neighbouring patches at the same pixels, noise of a "
                "pixel", max(seam.rms for seam in seams), none, 0.1),
    ]  # fmt: skip


def _subtracted(tract: GalaxyTract, folder: Path) -> list[Row]:
    store = tract.make(folder / "subtracted", mesh=MESH)
    warps(store, {"sky_map": tract.sky_map, "psf": None}).run(progress=False)
    coadds(store, {"coadd": {"statistic": "mean"}}).run(progress=False)
    return [
        between(
            f"the halo if each visit loses a background of its own instead, mesh of {MESH} px, "
            "objects masked",
            tract.halo(store),
            -np.inf,
            0.97,
        )
    ]
