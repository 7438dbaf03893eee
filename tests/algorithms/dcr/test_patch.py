"""A patch has one solution, whatever of its data are kept in memory and whoever works on them."""

from __future__ import annotations

from typing import Any, NamedTuple

import dask
import dask.array as da
import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import (
    DcrSolution,
    IterativeParameters,
    LinearParameters,
    patch_setup,
    solve_dcr,
)
from skyloom.algorithms.dcr.patch_setup import PatchSetup
from skyloom.algorithms.dcr.ratio_products import ratio_products
from skyloom.algorithms.dcr.settling import solve_settled
from skyloom.algorithms.dcr.transfer import PointSpreads
from skyloom.algorithms.dcr.visit_inputs import round_psfs
from tests.algorithms.dcr.analytic import NORTH_UP, G, dozen, observed, scene

FWHM, NOISE, SIZE = np.linspace(3.0, 4.0, 8), 5.0, 120
DATA = 8 * SIZE**2 * 4e-9
"""Weights of all visits, GB."""


class Sky(NamedTuple):
    table: xr.Dataset
    warps: xr.Dataset
    template: xr.Dataset

    def solve(self, warps: xr.Dataset | None = None, **options: Any) -> DcrSolution:
        """Return the linear solution."""
        return solve_dcr(self.warps if warps is None else warps, self.table, G, self.template,
                         jacobian=NORTH_UP, parameters=LinearParameters(**options))  # fmt: skip


@pytest.fixture(scope="module")
def sky() -> Sky:
    rng = np.random.default_rng(1)
    stars, table = scene(rng, SIZE, 16), dozen(rng, 8)
    warps, template = observed(stars.render(table, FWHM, beta=3.0), FWHM, NOISE, rng)
    warps["image"].values[4, 60:63, 30] += 100 * NOISE
    warps["image"].values[5, 82:84] += 30 * NOISE
    warps["image"].values[2] *= 1.1
    return Sky(table, warps.assign(psf=round_psfs(FWHM, beta=3.0, size=41)), template)


@pytest.fixture(scope="module")
def solution(sky: Sky) -> DcrSolution:
    with pytest.warns(match="sources of visits 2 have 1.10 of the flux"):
        return sky.solve()


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.VisitOutlierWarning")
@pytest.mark.parametrize("memory", [0.0, 0.4 * DATA, 1.6 * DATA])
def test_what_is_kept_in_memory_changes_nothing(
    sky: Sky, solution: DcrSolution, memory: float
) -> None:
    found = sky.solve(sky.warps.chunk({v.Y: 50}), memory=memory)
    xr.testing.assert_identical(
        found.model.drop_attrs(deep=False), solution.model.drop_attrs(deep=False)
    )
    xr.testing.assert_identical(found.diagnostics, solution.diagnostics)


def test_artifacts_are_rejected_and_nothing_else(solution: DcrSolution) -> None:
    told = solution.diagnostics
    assert told["rejected"].values[[4, 5]] == pytest.approx([35, 6 * SIZE])
    assert told["rejected"].values[[0, 1, 2, 3, 6, 7]].sum() == 0
    assert told["used"].values.all()
    assert float(told["chi2_total"]) < 1.2


class Counted:
    """Images in a store, which counts how often each is read."""

    def __init__(self, images: NDArray[np.float32]) -> None:
        self.images, self.shape, self.dtype, self.ndim = images, images.shape, images.dtype, 3
        self.counts = np.zeros(len(images), int)

    def __getitem__(self, key: tuple[slice, slice, slice]) -> NDArray[np.float32]:
        self.counts[key[0]] += 1
        return self.images[key]


@pytest.mark.parametrize(
    ("memory", "least", "most"), [(2.0 * DATA, 1, 1), (DATA, 4, 10), (0.0, 20, 99)]
)
def test_each_visit_is_read_once_if_there_is_room(
    sky: Sky, solution: DcrSolution, memory: float, least: int, most: int
) -> None:
    stored = Counted(sky.warps["image"].to_numpy())
    lazy = da.from_array(stored, chunks=(1, SIZE, SIZE), meta=np.empty((0, 0, 0), np.float32))
    warps = sky.warps.assign(image=(sky.warps["image"].dims, lazy))
    parameters = LinearParameters(memory=memory)
    with dask.config.set(scheduler="synchronous"):
        found = solve_settled(PatchSetup(warps, sky.table, G, sky.template, NORTH_UP, parameters))
    assert stored.counts.min() >= least
    assert stored.counts.max() <= most
    np.testing.assert_array_equal(found.planes, solution.model["model"])


@pytest.mark.filterwarnings("ignore::skyloom.algorithms.errors.VisitOutlierWarning")
def test_large_patches_have_the_same_solution_by_products_of_transfer_functions(
    sky: Sky, solution: DcrSolution, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patch_setup, "LARGE", 0)
    found, expected = (each.model["model"].to_numpy() for each in (sky.solve(), solution))
    assert found == pytest.approx(expected, abs=3e-6 * float(expected.max()))


@pytest.mark.parametrize("stamps", [True, False])
def test_products_are_the_ratios_of_transfer_functions(stamps: bool) -> None:
    widths = np.array([3.0, 3.05, 4.0, 6.0])
    images = round_psfs(widths, beta=3.0, size=41).to_numpy() if stamps else None
    spreads = PointSpreads(widths, images, match=True)
    made, expected = ratio_products(spreads, (300, 270)), spreads.ratios((300, 270))
    assert made is not None
    assert expected is not None
    assert len(made) == 4
    for one, other in zip((made[visit] for visit in range(4)), expected, strict=True):
        assert one == pytest.approx(other, abs=2e-6)
    equal = PointSpreads(np.full(3, 4.0), None, match=True)
    assert ratio_products(equal, (300, 270)) is None


def test_an_iteration_counts_each_pixel_once(sky: Sky) -> None:
    found = [
        solve_dcr(sky.warps, sky.table, G, sky.template, jacobian=NORTH_UP, solver="iterative",
                  parameters=IterativeParameters(subfilters=1, tile=tile))
        for tile in (SIZE, SIZE // 2)
    ]  # fmt: skip
    one, four = found
    xr.testing.assert_equal(one.diagnostics["pixel_count"], four.diagnostics["pixel_count"])
    xr.testing.assert_allclose(one.diagnostics["mean_weight"], four.diagnostics["mean_weight"])
    xr.testing.assert_equal(one.model["visit_count"], four.model["visit_count"])
    detected = (sky.template[v.MASK].values & v.MASK_PLANES["DETECTED"]) != 0
    assert (one.diagnostics["pixel_count"] == detected.sum()).all()


@pytest.mark.parametrize("fwhm", [4.0, np.linspace(3.4, 5.3, 12)])
@pytest.mark.parametrize("place", [(50.0, 1.3), (94.2, 60.0), (0.5, 0.8)])
@pytest.mark.parametrize(("flux", "chi2"), [(2e4, 1.05), (2e5, 1.5)])
def test_a_bright_star_at_the_border_of_a_patch_is_solved_for(
    fwhm: Any, place: tuple[float, float], flux: float, chi2: float
) -> None:
    """Light beyond the border is in no pixel, but visits move it into the patch: up to 2000 sigma.

    Were none of it in the planes, chi2 per pixel of the patch would be 37 with the brighter star.
    """
    rng = np.random.default_rng(1)
    stars, table = scene(rng, 96, 20), dozen(rng)
    y, x, fluxes = stars.y.copy(), stars.x.copy(), stars.flux.copy()
    (y[0], x[0]), fluxes[0] = place, flux
    stars = stars._replace(y=y, x=x, flux=fluxes)
    warps, template = observed(stars.render(table, fwhm), fwhm, NOISE, rng)
    found = Sky(table, warps, template).solve().diagnostics
    assert found["status"].values.tolist() == [v.DcrStatus.CONVERGED]
    assert found["used"].values.all()
    assert float(found["chi2_total"]) < chi2
