"""Visits added to a match, and taken out of it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import (
    ConfigurationError,
    DegenerateFitError,
    DroppedInputWarning,
    GeometryError,
    PoorlyDeterminedWarning,
)
from skyloom.algorithms.matching import (
    MatchParameters,
    match_backgrounds,
    remove_visit,
    update_match,
)
from skyloom.algorithms.simulate import TractParameters, simulate_tract
from tests.algorithms.matching.test_match import background_of

PLAIN = MatchParameters(robust=False)


@pytest.fixture(scope="module")
def made():
    """Return thirty visits of a small tract."""
    return simulate_tract(np.random.default_rng(7), parameters=TractParameters(visits=30, bins=24))


@pytest.mark.parametrize(
    "chosen",
    [
        PLAIN,
        MatchParameters(),
        MatchParameters(basis="spline", knots=(4, 4), smoothing=1e-3),
    ],
)
def test_a_new_visit_gets_nearly_what_solving_again_gives(made, chosen):
    old = match_backgrounds(made.background.isel({v.VISIT: slice(0, 29)}), parameters=chosen)
    before = old.copy(deep=True)
    new = update_match(old, made.background.isel({v.VISIT: [29]}), parameters=chosen)
    xr.testing.assert_identical(old, before)
    full = match_backgrounds(made.background, parameters=chosen)
    # both in the gauge of the old visits
    theta = full["coefficients"] - full["coefficients"][:29].mean(v.VISIT)
    difference = (new["coefficients"] - theta).values[29]
    covariance = full["coefficient_covariance"].values[29]
    pull = np.sqrt(difference @ np.linalg.pinv(covariance) @ difference / difference.size)
    assert pull < 0.1
    np.testing.assert_array_equal(new["coefficients"][:29], old["coefficients"])
    assert new["visit_count"].equals(full["visit_count"])
    assert new.attrs["updates"] == 1
    assert "overlap_rms_after" not in new
    shared = full["visit_count"] > 3
    assert float(np.abs(new["sky_weight"] / full["sky_weight"] - 1).where(shared).max()) < 0.3


def test_a_visit_taken_out_leaves_what_was_there(made):
    old = match_backgrounds(made.background.isel({v.VISIT: slice(0, 29)}))
    last = made.background.isel({v.VISIT: [29]})
    again = remove_visit(update_match(old, last), last, 30)
    covered = old["visit_count"].values > 0
    np.testing.assert_array_equal(again["visit_count"], old["visit_count"])
    np.testing.assert_allclose(again["sky"].values[covered], old["sky"].values[covered], rtol=1e-6)
    assert np.isnan(again["sky"].values[~covered]).all()
    np.testing.assert_array_equal(again[v.VISIT], old[v.VISIT])
    with pytest.raises(KeyError, match="no visit 77"):
        remove_visit(old, last, 77)


def test_ghosts_of_a_new_visit_do_not_count(made):
    old = match_backgrounds(made.background.isel({v.VISIT: slice(0, 29)}))
    clean = made.background.isel({v.VISIT: [29]})
    spoilt = clean.copy(deep=True)
    spoilt["level"][0, 3:10, 4:12] += 60
    found = [update_match(old, levels)["coefficients"].values[29] for levels in (clean, spoilt)]
    error = np.sqrt(np.diag(update_match(old, clean)["coefficient_covariance"].values[29]))
    assert (np.abs(found[1] - found[0]) < 2 * error).all()


def test_new_visits_that_do_not_fit_are_told():
    rng = np.random.default_rng(8)
    level = rng.normal(0, 1, (4, 12, 12))
    level[:, 10:] = np.nan
    level[2, 2:] = np.nan
    level[2, :, 3:] = np.nan
    level[3] = np.nan
    level[3, 11:] = 5.0
    background = background_of(level)
    old = match_backgrounds(background.isel({v.VISIT: [0, 1]}))
    with pytest.warns(PoorlyDeterminedWarning, match="visit 3"):
        found = update_match(old, background.isel({v.VISIT: [2]}))
    assert found["status"].values.tolist() == [0, 0, v.OffsetStatus.REDUCED]
    assert found["terms_used"].values.tolist() == [3, 3, 1]
    with pytest.raises(DegenerateFitError, match="visit 3"):
        update_match(
            old,
            background.isel({v.VISIT: [2]}),
            parameters=MatchParameters(on_degenerate="raise"),
        )
    with pytest.warns(DroppedInputWarning, match="visit 4 does not overlap"):
        found = update_match(old, background.isel({v.VISIT: [3]}))
    assert found["component"].values.tolist() == [0, 0, 1]
    assert (found["sky"][11] == 5.0).all()
    with pytest.warns(DroppedInputWarning, match="no usable bin"):
        found = update_match(old, background.isel({v.VISIT: [3]}) * np.nan)
    assert found["status"].values.tolist() == [0, 0, v.OffsetStatus.NO_DATA]
    with pytest.raises(ConfigurationError, match=r"already: \[2\]"):
        update_match(old, background.isel({v.VISIT: [1, 2]}))
    with pytest.raises(GeometryError, match="bin_size"):
        update_match(old, background.assign_attrs(bin_size=[5, 5]))
    bins = MatchParameters(mode="reference_bins", reference_visit=1)
    with pytest.raises(ConfigurationError, match="bin by bin"):
        update_match(
            match_backgrounds(background.isel({v.VISIT: [0, 1]}), parameters=bins),
            background.isel({v.VISIT: [2]}),
        )
