"""What the solutions do where there is little, nothing or too much to solve for."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.dcr import (
    DcrSolution,
    IterativeParameters,
    LinearParameters,
    dcr_shifts,
    dispersion,
    predict_template,
    solve_dcr,
    stack_planes,
)
from skyloom.algorithms.errors import (
    DegenerateGeometryWarning,
    ExtrapolatedTemplateWarning,
    GeometryError,
    NoBackgroundWarning,
    NoSourcesWarning,
    NotConvergedWarning,
    NoValidPixelsWarning,
    SkyloomWarning,
)
from skyloom.algorithms.refraction import LowAltitudeWarning
from tests.algorithms.dcr.analytic import NORTH_UP, G, coadd_of, conditions
from tests.algorithms.dcr.skies import FWHM, Sky, make_sky, observed, rms

SIZE, NOISE = 72, 5.0
SOLVERS = pytest.mark.parametrize("solver", ["linear", "iterative"])
NO_DATA = v.MASK_PLANES["NO_DATA"]


def solve(sky: Sky, solver: str, **options: Any) -> DcrSolution:
    kind = LinearParameters if solver == "linear" else IterativeParameters
    return solve_dcr(
        sky.warps, sky.table, G, sky.template, jacobian=NORTH_UP, solver=solver,
        parameters=kind(**options),
    )  # type: ignore[arg-type] # fmt: skip


def quiet(sky: Sky, solver: str, **options: Any) -> DcrSolution:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkyloomWarning)
        return solve(sky, solver, **options)


@pytest.fixture(scope="module")
def sky() -> Sky:
    return make_sky(4, NOISE, size=SIZE, stars=8)


def at_the_zenith(sky: Sky) -> Sky:
    rng = np.random.default_rng(2)
    table = conditions(np.zeros(5), 0.0)
    truth = sky.scene.render(table, FWHM)
    return Sky(sky.scene, table, truth, *observed(truth, FWHM, NOISE, rng))


@SOLVERS
def test_without_refraction_planes_are_equal_parts_and_the_status_says_so(
    sky: Sky, solver: str
) -> None:
    above = at_the_zenith(sky)
    found = quiet(above, solver)
    assert found.diagnostics["status"].item() == v.DcrStatus.NO_LEVERAGE
    part = np.broadcast_to(above.template["image"].to_numpy() / 3, (3, SIZE, SIZE))
    largest = float(above.template["image"].max())
    assert found.model["model"].to_numpy() == pytest.approx(part, abs=1e-6 * largest)
    assert found.diagnostics["iterations"].item() <= 3


@SOLVERS
def test_without_sources_nothing_is_iterated(sky: Sky, solver: str) -> None:
    blank = sky.template.copy(deep=True)
    blank["mask"].values[:] = 0
    with pytest.warns(NoSourcesWarning):
        found = solve(sky._replace(template=blank), solver)
    assert found.diagnostics["status"].item() == v.DcrStatus.NO_SOURCES
    assert found.diagnostics["iterations"].item() == 0
    part = blank["image"].to_numpy() / 3
    assert found.model["model"].to_numpy() == pytest.approx(
        np.broadcast_to(part, (3, SIZE, SIZE)), rel=1e-5, abs=1e-4
    )


@SOLVERS
def test_where_no_visit_is_valid_the_coadd_stays_and_holes_are_said(sky: Sky, solver: str) -> None:
    warps, template = sky.warps.copy(deep=True), sky.template.copy(deep=True)
    warps["mask"].values[:] = NO_DATA
    template["image"].values[20:30, 5:9] = np.nan
    template["variance"].values[20:30, 5:9] = np.inf
    with pytest.warns(NoValidPixelsWarning):
        found = solve(sky._replace(warps=warps, template=template), solver)
    assert found.diagnostics["status"].item() == v.DcrStatus.NO_VALID_PIXELS
    assert (found.model["n_image"] == 0).all()
    part = np.nan_to_num(template["image"].to_numpy()) / 3
    assert found.model["model"].to_numpy() == pytest.approx(
        np.broadcast_to(part, (3, SIZE, SIZE)), rel=1e-6
    )
    assert (found.model["mask"].to_numpy()[20:30, 5:9] & NO_DATA).all()
    of_metric = "chi2_total" if solver == "linear" else "convergence_last"
    assert np.isnan(found.diagnostics[of_metric]).all()


def test_a_field_full_of_sources_is_warned_of_and_has_the_noise_of_its_scatter(sky: Sky) -> None:
    crowded = sky.template.copy(deep=True)
    crowded["mask"].values[:] = v.MASK_PLANES["DETECTED"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotConvergedWarning)
        with pytest.warns(NoBackgroundWarning, match="1 of 1 tiles"):
            found = solve(sky._replace(template=crowded), "iterative", max_iterations=2)
    assert np.isfinite(found.model["model"]).all()
    assert np.isfinite(quiet(sky._replace(template=crowded), "linear").model["model"]).all()


@SOLVERS
def test_pixels_of_a_single_visit_are_told(sky: Sky, solver: str) -> None:
    warps = sky.warps.copy(deep=True)
    warps["mask"].values[1:, 5:-5, 5:-20] = NO_DATA
    found = quiet(sky._replace(warps=warps), solver)
    inside = (slice(26, 46), slice(24, 34))
    assert np.isfinite(found.model["model"]).all()
    if solver == "linear":
        assert (found.model["n_image"].to_numpy()[inside] == 1).all()
        assert (found.model["mask"].to_numpy()[inside] & v.MASK_PLANES["ONE_INPUT"]).all()
        assert not (found.model["mask"].to_numpy()[:, 57:] & v.MASK_PLANES["ONE_INPUT"]).any()
    else:
        whole = (slice(None), *inside)
        assert (found.model["n_image"].to_numpy()[whole] == 0).all()
        part = np.broadcast_to(sky.template["image"].to_numpy()[inside] / 3, (3, 20, 10))
        assert found.model["model"].to_numpy()[whole] == pytest.approx(part, rel=1e-4, abs=1e-3)


@SOLVERS
def test_where_the_coadd_is_not_a_number_planes_are_nothing(sky: Sky, solver: str) -> None:
    star = int(np.argmax(sky.scene.flux))
    y, x = (round(float(each[star])) for each in (sky.scene.y, sky.scene.x))
    hole = (slice(y + 3, y + 6), slice(x - 1, x + 2))
    template, warps = sky.template.copy(deep=True), sky.warps.copy(deep=True)
    template["image"].values[hole] = np.nan
    template["variance"].values[hole] = np.inf
    warps["mask"].values[:, *hole] |= NO_DATA
    before = template.copy(deep=True)
    found = quiet(sky._replace(warps=warps, template=template), solver)
    assert (found.model["model"].to_numpy()[:, *hole] == 0).all()
    assert (found.model["mask"].to_numpy()[hole] & NO_DATA).all()
    assert np.isinf(found.model["variance"].to_numpy()[:, *hole]).all()
    assert (found.model["n_image"].to_numpy()[..., *hole] == 0).all()
    xr.testing.assert_identical(template, before)
    if solver == "linear":  # what is beside a hole is hardly the worse for it
        beside = sky.scene.near(8.0)
        beside[y + 1 : y + 8, x - 3 : x + 4] = False
        change = found.model["model"] - quiet(sky, solver).model["model"]
        assert rms(change.sum(v.SUBFILTER).to_numpy()[beside]) < NOISE / np.sqrt(12)
    judged = quiet(sky._replace(template=template), solver)  # although all visits are valid
    assert (judged.model["model"].to_numpy()[:, *hole] == 0).all()
    assert (judged.model["mask"].to_numpy()[hole] & NO_DATA).all()


@SOLVERS
def test_a_model_that_is_perfect_has_converged(sky: Sky, solver: str) -> None:
    warps = sky.warps.copy(deep=True)
    warps["image"].values[:] = 0.0
    template = coadd_of(warps)
    template["mask"].values[20:40, 20:40] = v.MASK_PLANES["DETECTED"]
    found = solve(sky._replace(warps=warps, template=template), solver)
    assert found.diagnostics["status"].item() == v.DcrStatus.CONVERGED
    assert not found.model["model"].any()
    if solver == "iterative":
        assert found.diagnostics["convergence_last"].item() == 0.0


def test_a_model_of_one_geometry_holds_near_it_alone(sky: Sky) -> None:
    rng = np.random.default_rng(5)
    table = conditions(np.full(6, 40.0), 30.0)
    truth = sky.scene.render(table, FWHM)
    twins = Sky(sky.scene, table, truth, *observed(truth, FWHM, NOISE, rng))
    with pytest.warns(DegenerateGeometryWarning, match="colours are those of the prior"):
        found = solve(twins, "linear")
    part = twins.template["image"].to_numpy() / 3
    near = sky.scene.near(8.0)
    # The refraction of the visits themselves is taken out, colours stay those of the mean.
    fractions = found.model["model"].to_numpy()[:, near].sum(axis=1) / part[near].sum()
    assert fractions == pytest.approx(1.0, abs=0.05)
    same = predict_template(found.model, table.isel(visit=[0]))["image"].to_numpy()
    assert rms((same - truth[0])[near]) < NOISE
    with pytest.warns(ExtrapolatedTemplateWarning):
        predict_template(found.model, conditions([50.0], [-100.0]))


def test_an_iteration_that_ends_early_gives_its_best_and_says_so(sky: Sky) -> None:
    with pytest.warns(NotConvergedWarning, match="did not converge in 1 iterations: a rel"):
        found = solve(sky, "linear", max_iterations=1, reject_rounds=0)
    assert found.diagnostics["status"].item() in (v.DcrStatus.NOT_CONVERGED, v.DcrStatus.BAD_FIT)
    assert np.isfinite(found.model["model"]).all()
    start = sky.template["image"].to_numpy() - sky.truth[0]
    best = stack_planes(found.model)["image"].to_numpy() - sky.truth[0]
    assert rms(best) < rms(start)


@pytest.mark.parametrize("gone", ["altitude", "parallactic_angle", "pressure"])
@SOLVERS
def test_visits_without_their_conditions_are_refused_by_name(
    sky: Sky, solver: str, gone: str
) -> None:
    with pytest.raises(ValueError, match=f"conditions lack {gone}"):
        solve(sky._replace(table=sky.table.drop_vars(gone)), solver)


def test_numbers_of_sub_bands_that_cannot_be_are_refused() -> None:
    for number in (0, 2.5, True):
        with pytest.raises(ValueError, match="subfilters must be an integer of at least 1"):
            dcr_shifts(G, conditions(30.0, 0.0), NORTH_UP, subfilters=number)  # type: ignore[arg-type]
    for kind in (LinearParameters, IterativeParameters):
        for number in (0, 2.5):
            with pytest.raises(ValueError, match="subfilters"):
                kind(subfilters=number)  # type: ignore[arg-type]


def test_visits_near_the_horizon_are_warned_of_and_those_at_it_refused(sky: Sky) -> None:
    with pytest.warns(LowAltitudeWarning, match=r"12\.0 degree"):
        dcr_shifts(G, conditions(78.0, 0.0), NORTH_UP)
    altitude = sky.table["altitude"].copy()
    altitude[2], altitude[5] = 4.5, -1.0
    message = r"altitude must be from 5 to 90 degree, got 4\.5, -1 \(visits 2, 5\)"
    for solver in ("linear", "iterative"):
        with pytest.raises(ValueError, match=message):
            solve(sky._replace(table=sky.table.assign(altitude=altitude)), solver)


def test_one_call_warns_once_of_a_low_visit() -> None:
    with pytest.warns(LowAltitudeWarning) as caught:
        dispersion(G, conditions(78.0, 0.0), 500.0)
    assert len(caught) == 1


@SOLVERS
def test_conditions_that_are_not_known_are_named_with_their_visits(sky: Sky, solver: str) -> None:
    table = sky.table.copy(deep=True)
    table["pressure"][3], table["humidity"][7] = np.nan, np.inf
    message = r"not finite in pressure, humidity \(visits 3, 7\)"
    with pytest.raises(ValueError, match=message):
        solve(sky._replace(table=table), solver)


@SOLVERS
def test_visits_given_twice_or_not_at_all_are_refused_by_name(sky: Sky, solver: str) -> None:
    twice = np.array([*range(12), 4])
    with pytest.raises(ValueError, match="warps have visits 4 more than once"):
        solve(sky._replace(warps=sky.warps.isel(visit=twice)), solver)
    with pytest.raises(ValueError, match="conditions have visits 4 more than once"):
        solve(sky._replace(table=sky.table.isel(visit=twice)), solver)
    with pytest.raises(ValueError, match="warps have no visit"):
        solve(sky._replace(warps=sky.warps.isel(visit=[])), solver)


@SOLVERS
def test_other_units_and_projections_are_refused_by_name(sky: Sky, solver: str) -> None:
    for name, unit in (("image", "adu"), ("variance", "adu2")):
        other = sky.warps[name].assign_attrs(units=unit)
        with pytest.raises(ValueError, match=f"{name} of warps is in {unit}, that of the template"):
            solve(sky._replace(warps=sky.warps.assign({name: other})), solver)
    warps = sky.warps.assign_attrs(wcs={"CRVAL1": 10.0, "CTYPE1": "RA---TAN"})
    template = sky.template.assign_attrs(wcs='{"CRVAL1": 10.1, "CTYPE1": "RA---TAN"}')
    with pytest.raises(GeometryError, match=r"warps have wcs CRVAL1 = 10.0, the template 10.1"):
        solve(sky._replace(warps=warps, template=template), solver)
    template = sky.template.assign_attrs(wcs={"CRVAL1": 10.0})
    with pytest.raises(GeometryError, match="warps have wcs CTYPE1 = RA---TAN, the template None"):
        solve(sky._replace(warps=warps, template=template), solver)


@pytest.mark.parametrize("solver", ["linear", "iterative"])
def test_grids_that_differ_are_refused_by_name(sky: Sky, solver: str) -> None:
    with pytest.raises(ValueError, match=f"{SIZE} pixels along y, the template {SIZE - 1}"):
        solve(sky._replace(template=sky.template.isel(y=slice(1, None))), solver)
    warps = sky.warps.assign_attrs(box=[0, SIZE, 0, SIZE])
    template = sky.template.assign_attrs(box=[1, SIZE + 1, 0, SIZE])
    with pytest.raises(ValueError, match="warps are of box"):
        solve(sky._replace(warps=warps, template=template), solver)
