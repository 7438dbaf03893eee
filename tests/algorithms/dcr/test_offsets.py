"""Visits that lie elsewhere than the others: found, fitted at an offset, or left out."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import DcrSolution, LinearParameters, shift_image, solve_dcr
from skyloom.algorithms.errors import SkyloomWarning, VisitOutlierWarning
from tests.algorithms.dcr.analytic import NORTH_UP, G, Scene, dozen, observed, scene

FWHM, NOISE, WRONG = 4.0, 5.0, 6


class Sky(NamedTuple):
    scene: Scene
    table: xr.Dataset
    warps: xr.Dataset
    template: xr.Dataset

    def solve(self, warps: xr.Dataset, **options: Any) -> DcrSolution:
        """Return the solution of other warps of the same sky."""
        return solve_dcr(
            warps, self.table, G, self.template, jacobian=NORTH_UP,
            parameters=LinearParameters(**options),
        )  # fmt: skip

    def moved(self, offset: tuple[float, float]) -> xr.Dataset:
        """Return the warps, one of which lies elsewhere."""
        warps = self.warps.copy(deep=True)
        warps["image"][WRONG] = shift_image(warps["image"][WRONG], offset)
        return warps


@pytest.fixture(scope="module")
def sky() -> Sky:
    rng = np.random.default_rng(1)
    stars, table = scene(rng, 80, 14), dozen(rng)
    return Sky(stars, table, *observed(stars.render(table, FWHM), FWHM, NOISE, rng))


# The first is found by its chi2, in the second the bright pixels of stars are rejected.
@pytest.mark.parametrize("offset", [(1.5, -1.0), (0.3, -0.2), (0.1, 0.05)])
def test_a_visit_is_fitted_where_it_lies(sky: Sky, offset: tuple[float, float]) -> None:
    with pytest.warns(VisitOutlierWarning, match=r"visits lie elsewhere than the others, 6 by \("):
        found = sky.solve(sky.moved(offset), tolerance=1e-5)
    told = found.diagnostics
    where = [float(told[name][WRONG]) for name in ("offset_y", "offset_x")]
    assert where == pytest.approx(offset, abs=2e-3)
    others = np.arange(12) != WRONG
    assert (told["offset_y"].values[others] == 0).all()
    assert told["used"].values.all()
    assert not told["rejected"].values.any()
    assert float(told["chi2"][WRONG]) < 1.2
    right = sky.solve(sky.warps, tolerance=1e-5)
    difference = found.model["model"] - right.model["model"]
    at = (sky.template[v.MASK].values & v.MASK_PLANES["DETECTED"]) != 0
    noise = np.sqrt(right.model["variance"].values[:, at])
    assert np.sqrt(np.mean((difference.values[:, at] / noise) ** 2)) < 0.2


def test_a_visit_too_far_off_and_one_of_another_flux_are_left_out(sky: Sky) -> None:
    with pytest.warns(VisitOutlierWarning, match="visits 6 disagree with the others"):
        found = sky.solve(sky.moved((1.5, -1.0)), max_offset=1.0)
    assert found.diagnostics["used"].values.tolist() == [n != WRONG for n in range(12)]
    assert (found.diagnostics["offset_y"] == 0).all()
    brighter = sky.warps.copy(deep=True)
    brighter["image"][WRONG] *= 1.5
    with pytest.warns(VisitOutlierWarning, match="they are left out"):
        found = sky.solve(brighter, reject_rounds=0, match_flux=False)
    assert found.diagnostics["used"].values.tolist() == [n != WRONG for n in range(12)]
    assert (found.diagnostics["offset_y"] == 0).all()


def test_two_visits_that_lie_elsewhere_are_told_apart(sky: Sky) -> None:
    warps = sky.moved((0.8, 0.4))
    warps["image"][2] = shift_image(warps["image"][2], (-0.5, 0.7))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = sky.solve(warps)
    assert len([one for one in caught if one.category is VisitOutlierWarning]) == 1
    told = found.diagnostics
    assert [float(told[n][2]) for n in ("offset_y", "offset_x")] == pytest.approx(
        (-0.5, 0.7), abs=5e-3
    )
    assert [float(told[n][WRONG]) for n in ("offset_y", "offset_x")] == pytest.approx(
        (0.8, 0.4), abs=5e-3
    )
    assert told["used"].values.all()


def test_a_trail_over_stars_is_rejected_and_moves_nothing(sky: Sky) -> None:
    warps = sky.moved((0.0, 0.0))
    warps["image"][WRONG, 30:34] += 500.0
    found = sky.solve(warps)
    assert (found.diagnostics[["offset_y", "offset_x"]].to_array() == 0).all()
    assert int(found.diagnostics["rejected"][WRONG]) >= 4 * 80
    assert found.diagnostics["used"].values.all()


def test_an_offset_is_found_in_lazy_warps_too_and_inputs_stay(sky: Sky) -> None:
    warps = sky.moved((0.6, -0.4))
    before = warps.copy(deep=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        found = sky.solve(warps)
        lazy = sky.solve(warps.chunk({v.Y: 30}), memory=0.0)
    told = [float(found.diagnostics[name][WRONG]) for name in ("offset_y", "offset_x")]
    assert told == pytest.approx((0.6, -0.4), abs=5e-3)
    xr.testing.assert_identical(warps, before)
    xr.testing.assert_equal(found.model, lazy.model)
