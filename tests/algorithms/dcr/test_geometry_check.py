"""Displacements put to the test: right ones pass, turned, mirrored and opposite ones do not."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import LinearParameters, solve_dcr
from skyloom.algorithms.dcr.geometry_check import (
    SURE,
    GeometryCheck,
    check_geometry,
    warn_of_geometry,
)
from skyloom.algorithms.dcr.operator import light_of
from skyloom.algorithms.dcr.shifts import subband_photons
from skyloom.algorithms.dcr.transfer import point_spreads
from skyloom.algorithms.errors import DegenerateGeometryWarning, NotConvergedWarning
from tests.algorithms.dcr.analytic import NORTH_UP, G, Scene, conditions, dozen, observed, scene

FWHM = 4.0
Floats = NDArray[np.float64]


class Night(NamedTuple):
    """Stars in visits."""

    scene: Scene
    table: xr.Dataset
    truth: Floats
    warps: xr.Dataset
    template: xr.Dataset

    def check(self, jacobian: Floats = NORTH_UP, used: NDArray[np.bool_] | None = None
              ) -> GeometryCheck:  # fmt: skip
        """Return which way these visits show light dispersed."""
        return check_geometry(
            self.warps, self.template, light_of(G, self.table, jacobian, 3, "linear"),
            subband_photons(G, 3), point_spreads(self.warps, match=True), LinearParameters(), 1e-5,
            np.ones(len(self.truth), bool) if used is None else used,
        )  # fmt: skip


def night(seed: int, noise: float, table: xr.Dataset | None = None, size: int = 96) -> Night:
    rng = np.random.default_rng(seed)
    stars = scene(rng, size, 20)
    table = dozen(rng) if table is None else table
    truth = stars.render(table, FWHM)
    return Night(stars, table, truth, *observed(truth, FWHM, noise, rng))


def turned(angle: float) -> Floats:
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return np.asarray(NORTH_UP @ np.array([[cos, -sin], [sin, cos]]))


MIRRORED = np.diag([0.2, 0.2])


@pytest.mark.parametrize("noise", [5.0, 50.0, 200.0])
@pytest.mark.parametrize("seed", range(6))
def test_the_right_geometry_is_never_doubted(seed: int, noise: float) -> None:
    found = night(seed, noise).check()
    assert not found.wrong
    assert not found.mirrored
    assert abs(found.angle) < (0.5 if noise < 100 else 4.0)
    assert found.gain < 5.0
    assert found.told or noise > 100


@pytest.mark.parametrize("noise", [5.0, 50.0])
@pytest.mark.parametrize("seed", [1, 2])
def test_wrong_geometries_are_told_with_the_change_that_mends_them(seed: int, noise: float) -> None:
    seen = night(seed, noise)
    for angle in (30.0, -90.0, 180.0):
        found = seen.check(turned(angle))
        assert found.wrong
        assert not found.mirrored
        assert abs((found.angle - angle + 180.0) % 360.0 - 180.0) < 0.5
        assert found.angle_error < 0.3
    found = seen.check(MIRRORED)
    assert found.wrong
    assert found.mirrored
    assert abs(found.angle) < 0.5


def test_the_error_of_the_angle_is_its_scatter() -> None:
    rng = np.random.default_rng(7)
    stars = scene(rng, 72, 10)
    table = dozen(rng)
    truth = stars.render(table, FWHM)
    found = [
        Night(stars, table, truth, *observed(truth, FWHM, 50.0, rng)).check() for _ in range(16)
    ]
    scatter = np.std([one.angle for one in found])
    assert scatter == pytest.approx(np.median([one.angle_error for one in found]), rel=0.5)


@pytest.mark.parametrize(
    "table",
    [
        conditions(np.linspace(10.0, 55.0, 12), 40.0),
        conditions(np.full(6, 45.0), np.linspace(-150.0, 150.0, 6)),
        conditions(np.linspace(1.0, 5.0, 12), np.linspace(-150.0, 150.0, 12)),
        conditions([20.0, 50.0], [30.0, -60.0]),
    ],
    ids=["one angle", "one airmass", "at the zenith", "two visits"],
)
def test_poor_sets_of_visits_still_tell_their_directions(table: xr.Dataset) -> None:
    seen = night(3, 5.0, table)
    assert not seen.check().wrong
    for jacobian in (turned(180.0), turned(60.0), MIRRORED):
        assert seen.check(jacobian).wrong


def test_objects_that_do_not_tell_are_said_not_to() -> None:
    identical = night(1, 5.0, conditions(np.full(6, 45.0), 30.0))
    for jacobian in (NORTH_UP, turned(180.0), MIRRORED):
        found = identical.check(jacobian)
        assert found.contrast < SURE
        assert not found.wrong
    faint = night(1, 5000.0).check(turned(180.0))
    assert not faint.told
    assert not faint.wrong


def test_a_visit_that_lies_elsewhere_or_is_brighter_does_not_decide() -> None:
    seen = night(1, 5.0)
    shifted, brighter = seen.warps.copy(deep=True), seen.warps.copy(deep=True)
    shifted["image"].values[3] = np.roll(shifted["image"].values[3], 2, axis=0)
    brighter["image"].values[3] *= 1.3
    for warps in (shifted, brighter):
        found = seen._replace(warps=warps).check()
        assert not found.wrong
        assert abs(found.angle) < 6.0
    others = seen._replace(warps=shifted).check(used=np.arange(12) != 3)
    assert abs(others.angle) < 0.1


def test_artifacts_in_one_visit_do_not_decide() -> None:
    seen = night(1, 50.0)
    warps = seen.warps.copy(deep=True)
    brightest = int(seen.scene.flux.argmax())
    y, x = round(float(seen.scene.y[brightest])), round(float(seen.scene.x[brightest]))
    warps["image"].values[2, y - 1 : y + 2, x] += 1e6
    warps["image"].values[5, np.arange(96), np.arange(96)] += 1e4
    struck = seen._replace(warps=warps)
    assert not struck.check().wrong
    assert struck.check(turned(180.0)).wrong
    assert struck.check(MIRRORED).wrong


@pytest.mark.parametrize("value", [1e12, 3e38])
def test_pixels_beyond_all_bounds_are_limited_without_a_warning(value: float) -> None:
    seen = night(1, 50.0)
    warps = seen.warps.copy(deep=True)
    brightest = int(seen.scene.flux.argmax())
    warps["image"].values[2, round(seen.scene.y[brightest]), round(seen.scene.x[brightest])] = value
    assert abs(seen._replace(warps=warps).check().angle) < 1.0


def test_bad_pixels_and_missing_visits_do_not_matter_much() -> None:
    seen = night(2, 50.0)
    warps = seen.warps.copy(deep=True)
    warps["image"].values[1, :, :48] = np.nan
    warps["image"].values[4] = np.nan
    warps["mask"].values[7, ::9] = v.MASK_PLANES["BAD"]
    found = seen._replace(warps=warps).check()
    assert abs(found.angle) < 5.0 * found.angle_error < 3.0
    assert seen._replace(warps=warps).check(turned(30.0)).wrong


def test_inputs_are_left_alone_and_chunks_do_not_matter() -> None:
    seen = night(1, 50.0)
    before = seen.warps.copy(deep=True)
    found = seen.check()
    xr.testing.assert_identical(seen.warps, before)
    assert seen._replace(warps=seen.warps.chunk({"y": 40})).check() == found


def test_patches_without_enough_to_ask_know_nothing() -> None:
    small = night(1, 5.0)
    empty = small.template.assign(mask=xr.zeros_like(small.template["mask"]))
    tiny = {"y": slice(0, 16), "x": slice(0, 16)}
    blank = small.warps.assign(image=small.warps["image"] * np.nan)
    for one in (
        small._replace(template=empty),
        small._replace(template=small.template.isel(tiny), warps=small.warps.isel(tiny)),
        small._replace(warps=blank),
    ):
        found = one.check()
        assert found.objects == 0
        assert not found.told
    assert small.check(used=np.arange(12) < 1).objects == 0


@pytest.mark.parametrize("noise", [5.0, 50.0])
@pytest.mark.parametrize(
    ("jacobian", "said"),
    [
        (MIRRORED, "mirrored along x"),
        (turned(30.0), r"turned by (29|30)\.\d ± 0\.\d degree"),
        (-NORTH_UP, r"turned by -?(179|180)\.\d ± 0\.\d degree"),
    ],
    ids=["mirrored", "turned", "opposite"],
)
def test_a_solution_of_a_wrong_geometry_is_a_failure_at_default_parameters(
    jacobian: Floats, said: str, noise: float
) -> None:
    seen = night(2, noise, size=72)
    with pytest.warns(NotConvergedWarning, match=said):
        found = _quietly(seen, jacobian)
    assert (found["status"] == v.DcrStatus.BAD_FIT).all()
    assert float(found["geometry_gain"]) > SURE
    assert float(found["geometry_contrast"]) > SURE


def test_a_solution_of_the_right_geometry_says_how_well_it_is_known() -> None:
    seen = night(1, 50.0, size=72)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = solve_dcr(seen.warps, seen.table, G, seen.template, jacobian=NORTH_UP).diagnostics
    assert found["status"].item() == v.DcrStatus.CONVERGED
    assert abs(float(found["geometry_angle"])) < 5.0 * float(found["geometry_angle_error"]) < 2.0
    assert float(found["geometry_mirrored"]) == 0.0


def test_a_single_sub_band_is_told_of_its_geometry_too() -> None:
    seen = night(1, 50.0, size=72)
    p = LinearParameters(subfilters=1, reject_rounds=0, outlier_factor=1e9, chi2_limit=1e9)
    with pytest.warns(NotConvergedWarning, match="turned by"):
        solve_dcr(seen.warps, seen.table, G, seen.template, jacobian=-NORTH_UP, parameters=p)


def test_an_iteration_is_told_of_its_geometry_too() -> None:
    seen = night(1, 50.0, size=72)
    for jacobian, wrong in ((NORTH_UP, False), (MIRRORED, True)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = solve_dcr(
                seen.warps, seen.table, G, seen.template, jacobian=jacobian, solver="iterative"
            ).diagnostics
        assert any("mirrored along x" in str(one.message) for one in caught) == wrong
        assert bool((found["status"] == v.DcrStatus.BAD_FIT).all()) == wrong
        assert float(found["geometry_mirrored"]) == float(wrong)


def test_nothing_is_said_of_a_geometry_that_was_not_tested() -> None:
    nothing = xr.Dataset({"status": ("tile", [np.uint8(v.DcrStatus.CONVERGED)])})
    warn_of_geometry(nothing)
    assert nothing["status"].item() == v.DcrStatus.CONVERGED


def _quietly(seen: Night, jacobian: Floats) -> xr.Dataset:
    """Solve with whatever else is warned of."""
    with warnings.catch_warnings():
        warnings.simplefilter("always", NotConvergedWarning)
        warnings.filterwarnings("ignore", "(?!visits show light)")
        warnings.simplefilter("ignore", DegenerateGeometryWarning)
        return solve_dcr(seen.warps, seen.table, G, seen.template, jacobian=jacobian).diagnostics
