"""Visits of another flux, stars that vary, and solutions of a single sub-band."""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import (
    DcrSolution,
    LinearParameters,
    dcr_shifts,
    shift_image,
    solve_dcr,
)
from skyloom.algorithms.dcr.visit_flux import FluxSums, flux_scales
from skyloom.algorithms.errors import (
    DegenerateGeometryWarning,
    SkyloomWarning,
    VariableSourceWarning,
    VisitOutlierWarning,
)
from tests.algorithms.dcr.analytic import (
    NORTH_UP,
    G,
    Scene,
    coadd_of,
    conditions,
    dozen,
    observed,
    scene,
)

FWHM, NOISE = 4.0, 5.0


class Sky(NamedTuple):
    scene: Scene
    table: xr.Dataset
    warps: xr.Dataset
    template: xr.Dataset

    def solve(self, warps: xr.Dataset, **options: Any) -> DcrSolution:
        """Return the solution of warps and their own coadd."""
        template = coadd_of(warps)
        return solve_dcr(warps, self.table, G, template, jacobian=NORTH_UP,
                         parameters=LinearParameters(**options))  # fmt: skip

    def scaled(self, scales: np.ndarray) -> xr.Dataset:
        """Return the warps with the light of each times a factor."""
        rng = np.random.default_rng(2)
        light = self.scene.render(self.table, FWHM) * scales[:, None, None]
        return observed(light, FWHM, NOISE, rng)[0]


@pytest.fixture(scope="module")
def sky() -> Sky:
    rng = np.random.default_rng(1)
    stars, table = scene(rng, 80, 14), dozen(rng)
    return Sky(stars, table, *observed(stars.render(table, FWHM), FWHM, NOISE, rng))


@pytest.mark.parametrize("factor", [1.05, 1.3, 0.7])
def test_a_visit_of_another_flux_is_named_and_scaled_and_keeps_its_stars(
    sky: Sky, factor: float
) -> None:
    scales = np.ones(12)
    scales[3] = factor
    warps = sky.scaled(scales)
    before = warps.copy(deep=True)
    with pytest.warns(VisitOutlierWarning, match=f"sources of visits 3 have {factor:.2f} of the"):
        found = sky.solve(warps)
    told = found.diagnostics
    assert told["flux_scale"].values == pytest.approx(scales, abs=2e-3)
    assert told["used"].values.all()
    assert not told["rejected_fraction"].values.any()
    assert float(told["chi2"].max()) < 1.3
    xr.testing.assert_identical(warps, before)


def test_zero_points_that_scatter_cost_no_visit(sky: Sky) -> None:
    scales = 1.0 + 0.02 * np.random.default_rng(3).normal(size=12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", VisitOutlierWarning)
        found = sky.solve(sky.scaled(scales))
    told = found.diagnostics
    assert told["used"].values.all()
    relative = told["flux_scale"].values / (scales / np.median(scales))
    assert relative == pytest.approx(np.ones(12), abs=4e-3)
    assert not told[["offset_y", "offset_x"]].to_array().any()
    assert float(told["chi2_total"]) < 1.2


def test_a_visit_that_may_not_be_scaled_is_left_out_rather_than_its_stars(sky: Sky) -> None:
    scales = np.ones(12)
    scales[3] = 1.3
    with pytest.warns(VisitOutlierWarning, match="visits 3 disagree with the others"):
        found = sky.solve(sky.scaled(scales), match_flux=False)
    assert found.diagnostics["used"].values.tolist() == [n != 3 for n in range(12)]
    assert not found.diagnostics["rejected"].values.any()


def test_a_star_that_varies_is_told(sky: Sky) -> None:
    star = int(np.argsort(-sky.scene.flux)[3])
    one = sky.scene._replace(
        **{name: getattr(sky.scene, name)[[star]] for name in ("y", "x", "flux", "spectrum")}
    )
    warps = sky.warps.copy(deep=True)
    warps["image"].values[3] += 0.5 * one.render(sky.table, FWHM)[3]
    with pytest.warns(VariableSourceWarning, match=r"1 times a source .* \(visits 3\)"):
        found = sky.solve(warps)
    assert found.diagnostics["varying"].values.tolist() == [int(n == 3) for n in range(12)]
    assert 0 < float(found.diagnostics["rejected_fraction"][3]) < 0.1
    assert (found.diagnostics["flux_scale"] == 1.0).all()


def test_a_flux_is_the_median_of_sources_whatever_one_of_them_does() -> None:
    sums, sources = FluxSums(4, 30), np.arange(1, 31)
    told, weights = np.full(30, 1000.0, np.float32), np.ones(30, np.float32)
    for visit, scale in enumerate((1.0, 0.8, 1.0, 1.001)):
        seen = told * np.float32(scale)
        seen[5] *= 3.0
        sums.add(visit, sources, seen, told, weights)
    assert flux_scales(sums, np.ones(4, bool)) == pytest.approx([1.0, 0.8, 1.0, 1.0], abs=1e-3)
    assert flux_scales(sums, np.zeros(4, bool)).tolist() == [1.0] * 4
    assert flux_scales(FluxSums(2, 3), np.ones(2, bool)).tolist() == [1.0, 1.0]


def test_a_single_sub_band_is_the_mean_of_visits_moved_back(sky: Sky) -> None:
    found = sky.solve(sky.warps, subfilters=1)
    shifts = dcr_shifts(G, sky.table, NORTH_UP, subfilters=1)
    mean = np.zeros((80, 80))
    light = sky.scene.render(sky.table, FWHM)
    exact = sky.warps.copy(deep=True)
    exact["image"].values[:] = light
    found = sky.solve(exact, subfilters=1)
    for visit in range(12):
        back = tuple(-float(shifts[name][visit, 0]) for name in ("shift_y", "shift_x"))
        wide = xr.DataArray(light[visit], dims=(v.Y, v.X)).pad(y=32, x=32, constant_values=0.0)
        mean += shift_image(wide, back).to_numpy()[32:-32, 32:-32] / 12
    inside = (slice(12, -12), slice(12, -12))
    assert found.model["model"].to_numpy()[0][inside] == pytest.approx(
        mean[inside], abs=1e-5 * float(mean.max())
    )


def test_a_single_sub_band_loses_no_visit_and_no_star_for_colours_it_has_not(sky: Sky) -> None:
    table = conditions(np.linspace(40.0, 47.0, 6), np.linspace(30.0, 42.0, 6))
    rng = np.random.default_rng(5)
    warps, template = observed(sky.scene.render(table, FWHM), FWHM, NOISE, rng)
    warps["image"].values[2, 10:13, 40] += 200 * NOISE
    with warnings.catch_warnings():
        warnings.simplefilter("error", SkyloomWarning)
        warnings.simplefilter("ignore", DegenerateGeometryWarning)
        found = solve_dcr(warps, table, G, template, jacobian=NORTH_UP,
                          parameters=LinearParameters(subfilters=1))  # fmt: skip
    assert found.diagnostics["used"].values.all()
    assert found.diagnostics["status"].item() == v.DcrStatus.CONVERGED
    rejected = found.diagnostics["rejected"].values
    assert rejected[2] >= 3
    assert rejected[[0, 1, 3, 4, 5]].sum() == 0
