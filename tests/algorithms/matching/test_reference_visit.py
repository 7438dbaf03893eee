"""A reference visit: its choice, and visits matched to it."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import (
    ConfigurationError,
    DroppedInputWarning,
    NoUsableDataError,
)
from skyloom.algorithms.matching import (
    MatchParameters,
    SelectionParameters,
    choose_reference_visit,
    match_backgrounds,
    offset_image,
)
from skyloom.algorithms.simulate import TractParameters, simulate_tract
from tests.algorithms.matching.test_match import background_of, error_of

BINS = MatchParameters(mode="reference_bins", reference_visit=1, interpolation="constant")


def partly_covered(seed: int) -> xr.Dataset:
    """Return five visits that differ in the fraction of the tract that they cover."""
    level = np.random.default_rng(seed).normal(0, 1, (5, 20, 20))
    for visit, fraction in enumerate((0.2, 0.4, 0.6, 0.8, 1.0)):
        level[visit, :, int(20 * fraction) :] = np.nan
    return background_of(level)


def test_the_visit_with_most_coverage_wins_among_equals():
    wins = [choose_reference_visit(partly_covered(seed))[0] for seed in range(10)]
    assert wins.count(5) >= 9


def test_the_reference_prefers_what_covers_least_and_compat_does_as_it_does():
    visit, table = choose_reference_visit(
        partly_covered(0), parameters=SelectionParameters(mode="compat")
    )
    assert visit == 1
    assert (np.diff(table["cost"]) > 0).all()
    assert table["coverage"].values.tolist() == [1.0] * 5  # after filling
    assert float(table["cost"][-1]) == pytest.approx(1.0, abs=0.06)


def test_the_table_says_why_visits_were_left_out():
    level = np.random.default_rng(1).normal(0, 1, (4, 20, 20))
    level[1] = np.nan
    level[2, :, 3:] = np.nan
    level[3, 2:] = np.nan
    level[3, :2, 1:] = np.nan
    visit, table = choose_reference_visit(
        background_of(level), parameters=SelectionParameters(min_coverage=0.1)
    )
    assert visit == 1
    assert table["reason"].values.tolist() == ["", "no data", "", "too few bins for a plane"]
    assert np.isnan(table["cost"].values).tolist() == [False, True, False, True]
    for name in ("coverage", "complexity", "noise", "rank_coverage", "rank_complexity", "cost"):
        assert table[name].dims == (v.VISIT,)
    _, table = choose_reference_visit(background_of(level))
    assert table["reason"][2] == "coverage below the minimum"


def test_noise_gradients_and_conditions_count():
    rng = np.random.default_rng(2)
    level = rng.normal(0, 1, (3, 20, 20))
    sigma = np.array([1.0, 3.0, 1.0])[:, None, None]
    level[1] *= 3
    level[2] += 20 * np.linspace(-1, 1, 20) ** 2
    background = background_of(level, sigma)
    visit, table = choose_reference_visit(background)
    assert visit == 1
    assert table["rank_noise"].values.tolist() == [0, 2, 0]
    assert table["rank_complexity"].values.tolist()[2] == 2
    seeing = xr.Dataset({"seeing": (v.VISIT, [0.9, 0.7, 0.5])}, {v.VISIT: [1, 2, 3]})
    visit, table = choose_reference_visit(
        background, conditions=seeing, parameters=SelectionParameters(conditions=10.0)
    )
    assert visit == 3
    assert table["rank_seeing"].values.tolist() == [2, 1, 0]
    with pytest.raises(ConfigurationError, match="lack the visits"):
        choose_reference_visit(background, conditions=seeing.isel({v.VISIT: [0]}))


def test_the_order_of_visits_does_not_matter_for_the_choice():
    background = partly_covered(3)
    visit, table = choose_reference_visit(background)
    other, mixed = choose_reference_visit(background.isel({v.VISIT: [3, 1, 4, 0, 2]}))
    assert visit == other
    xr.testing.assert_identical(table.isel({v.VISIT: [3, 1, 4, 0, 2]}), mixed)


def test_weights_that_are_zero_or_negative_are_refused():
    with pytest.raises(ValueError, match="all weights are zero"):
        SelectionParameters(coverage=0, complexity=0, noise=0)
    with pytest.raises(ValueError, match="greater than or equal"):
        SelectionParameters(noise=-1)
    only_conditions = SelectionParameters(coverage=0, complexity=0, noise=0, conditions=1)
    with pytest.raises(ConfigurationError, match="all measures given are zero"):
        choose_reference_visit(partly_covered(0), parameters=only_conditions)


@pytest.mark.parametrize("mode", ["measured", "compat"])
def test_no_visit_with_data_is_an_error(mode):
    with pytest.raises(NoUsableDataError, match="no visit can be the reference"):
        choose_reference_visit(
            background_of(np.full((2, 4, 4), np.nan)), parameters=SelectionParameters(mode=mode)
        )


def test_the_gauge_takes_the_chosen_visit():
    made = simulate_tract(np.random.default_rng(1), parameters=TractParameters(visits=5, bins=20))
    visit, _ = choose_reference_visit(made.background)
    found = match_backgrounds(made.background, parameters=MatchParameters(gauge="reference"))
    assert found.attrs["reference_visit"] == visit
    assert (found["coefficients"].sel({v.VISIT: visit}) == 0).all()


def test_a_reference_with_planes_is_as_good_as_its_own_noise_allows():
    made = simulate_tract(np.random.default_rng(2), parameters=TractParameters(visits=12, bins=24))
    joint = match_backgrounds(made.background)
    visit, _ = choose_reference_visit(made.background)
    planes = match_backgrounds(
        made.background, parameters=MatchParameters(mode="reference", reference_visit=visit)
    )
    assert error_of(joint, made) < error_of(planes, made) < 3 * error_of(joint, made)
    assert (planes["coefficients"].sel({v.VISIT: visit}) == 0).all()
    # of two visits, both are the same fit
    two = made.background.isel({v.VISIT: [0, 1]})
    pair = MatchParameters(mode="reference", reference_visit=1)
    both = match_backgrounds(two, parameters=pair)
    same = match_backgrounds(two, parameters=MatchParameters(gauge="reference", reference_visit=1))
    for name in ("coefficients", "coefficient_covariance", "sky"):
        np.testing.assert_allclose(both[name], same[name], rtol=1e-8, atol=1e-8)


def test_visits_that_do_not_reach_the_reference_are_named_and_joint_matching_reaches_them():
    rng = np.random.default_rng(3)
    level = rng.normal(0, 0.01, (3, 12, 30)) + np.array([5.0, 1.0, -3.0])[:, None, None]
    level[0, :, 12:] = np.nan
    level[1, :, :6] = level[1, :, 24:] = np.nan
    level[2, :, :18] = np.nan
    background = background_of(level, 0.01)
    for mode in ("reference", "reference_bins"):
        chosen = MatchParameters(mode=mode, reference_visit=1)
        with pytest.warns(DroppedInputWarning, match=r"reference 1: \[3\]"):
            found = match_backgrounds(background, parameters=chosen)
        assert found["status"].values.tolist() == [0, 0, v.OffsetStatus.NO_REFERENCE_OVERLAP]
        with pytest.raises(NoUsableDataError, match="visit 3"):
            offset_image(found, 3, (0, 10, 0, 10))
    joint = match_backgrounds(
        background, parameters=MatchParameters(order=0, gauge="reference", reference_visit=1)
    )
    np.testing.assert_allclose(joint["coefficients"][:, 0], [0, -4, -8], atol=0.01)


def test_offsets_bin_by_bin_are_differences_and_nan_without_overlap():
    rng = np.random.default_rng(4)
    level = rng.normal(0, 1, (2, 6, 8))
    level[0, :, 6:] = np.nan
    level[1, 2, 2] = np.nan
    background = background_of(level)
    before = background.copy(deep=True)
    found = match_backgrounds(background, parameters=BINS)
    xr.testing.assert_identical(background, before)
    np.testing.assert_array_equal(found["offset"][1], (level[0] - level[1]).astype(np.float32))
    assert (found["offset_variance"][1].values[np.isfinite(found["offset"][1])] == 2).all()
    assert (found["offset"][0, :, :6] == 0).all()
    image = offset_image(found, 2, (0, 60, 0, 80))
    assert np.isnan(image[20:30, 20:30]).all()
    assert np.isnan(image[:, 60:]).all()
    assert int(np.isnan(image).sum()) == 100 + 60 * 20
    assert (image[10:20, 10:20] == found["offset"][1, 1, 1]).all()
    filled = match_backgrounds(background, parameters=BINS.model_copy(update={"extrapolate": True}))
    assert np.isfinite(filled["offset"]).all()
    assert (filled["flags"][1, :, 6:] & v.BinFlag.EXTRAPOLATED > 0).all()
    assert int(filled["flags"][1, 2, 2]) & v.BinFlag.FILLED
    assert np.isfinite(offset_image(filled, 2, (-5, 70, 0, 90))).all()


def test_bin_by_bin_copies_the_noise_of_the_reference_into_all():
    made = simulate_tract(
        np.random.default_rng(5),
        parameters=TractParameters(
            visits=16, bins=30, gaps=0, dead=0.0, dither=0.0, radius=2.0, quietest=1.0, noisiest=1.0
        ),
    )
    level = made.background["level"]
    bins = match_backgrounds(made.background, parameters=BINS)
    joint = match_backgrounds(made.background)
    truth = made.truth["sky"] + made.truth["field"][0]
    copied = (level + bins["offset"]).mean(v.VISIT) - truth
    assert float(copied.std()) == pytest.approx(1.0, abs=0.05)
    common = joint["sky"] - made.truth["sky"] - made.truth["field"].mean(v.VISIT)
    assert float(common.std()) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("mode", ["reference", "reference_bins"])
def test_a_reference_that_is_not_there_is_named(mode):
    with pytest.raises(ConfigurationError, match="9 is not among"):
        match_backgrounds(
            partly_covered(0), parameters=MatchParameters(mode=mode, reference_visit=9)
        )
