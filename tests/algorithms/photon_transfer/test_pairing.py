"""Which exposures make a pair, and what becomes of those that do not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from skyloom.algorithms.photon_transfer.pairing import first_shifted_exposure, pair_exposures
from skyloom.algorithms.photon_transfer.parameters import PairParameters
from skyloom.algorithms.vocabulary import PairStatus


def quietly(*args, **kwargs):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pair_exposures(*args, **kwargs)


def labels(pairs):
    return pairs["pair"].values.tolist()


def status_of(pairs, exposure):
    return int(pairs["exposure_status"].sel(exposure=exposure))


def test_exposures_of_equal_time_are_pairs_and_nobody_is_warned():
    pairs = pair_exposures([1.0, 2.0, 1.0, 2.0], [11, 12, 13, 14])
    assert labels(pairs) == ["11-13", "12-14"]
    assert pairs["exposure_1"].values.tolist() == [11, 12]
    assert pairs["exposure_2"].values.tolist() == [13, 14]
    assert pairs["pair_key"].values.tolist() == [1.0, 2.0]
    assert (pairs["exposure_status"] == PairStatus.OK).all()


def test_times_five_milliseconds_apart_pair_and_the_true_times_are_averaged():
    pairs = pair_exposures([10.0, 10.004], [1, 2], exposure_time=[10.0, 10.004])
    assert labels(pairs) == ["1-2"]
    assert pairs["exposure_time"].values == pytest.approx([10.002], abs=1e-12)
    assert pairs["exposure_time"].attrs["units"] == "s"


def test_a_flux_is_matched_but_the_true_exposure_time_is_stored():
    pairs = pair_exposures([0.3, 0.3], [1, 2], mode="flux", exposure_time=[5.0, 7.0])
    assert pairs["pair_key"].values.tolist() == [0.3]
    assert pairs["exposure_time"].values.tolist() == [6.0]


def test_one_exposure_at_a_time_is_unpaired_with_a_warning_and_no_row():
    with pytest.warns(UserWarning, match=r"UNPAIRED\): 7") as caught:
        pairs = pair_exposures([1.0, 1.0, 2.0], [5, 6, 7])
    assert len(caught) == 1
    assert labels(pairs) == ["5-6"]
    assert status_of(pairs, 7) == PairStatus.UNPAIRED


def test_of_three_exposures_at_one_time_the_third_is_extra():
    with pytest.warns(UserWarning, match=r"EXTRA\): 9") as caught:
        pairs = pair_exposures([1.0, 1.0, 1.0], [7, 8, 9])
    assert len(caught) == 1
    assert labels(pairs) == ["7-8"]
    assert status_of(pairs, 9) == PairStatus.EXTRA


def test_every_missing_flux_is_reported_in_one_warning():
    with pytest.warns(UserWarning, match="2, 4, 6") as caught:
        pairs = pair_exposures([1, np.nan, 1, np.inf, 2, np.nan, 2], np.arange(1, 8), mode="flux")
    assert len(caught) == 1
    assert labels(pairs) == ["1-3", "5-7"]
    assert [status_of(pairs, i) for i in (2, 4, 6)] == [PairStatus.NONFINITE_KEY] * 3


def test_a_flood_of_unpaired_exposures_is_cut_short():
    with pytest.warns(UserWarning, match="30 exposures .* and 10 more") as caught:
        pair_exposures(10.0 * np.arange(30), np.arange(30))
    assert len(caught) == 1


def test_extra_pairs_are_made_on_demand():
    parameters = PairParameters(use_extra_pairs=True)
    with pytest.warns(UserWarning, match=r"EXTRA\): 5"):
        pairs = pair_exposures(np.ones(5), [1, 2, 3, 4, 5], parameters=parameters)
    assert labels(pairs) == ["1-2", "3-4"]


def test_a_run_of_four_equal_fluxes_gives_two_pairs_where_the_reference_lost_one():
    parameters = PairParameters(mode="flux", adjacency="sequential", use_extra_pairs=True)
    assert labels(pair_exposures(np.ones(4), [1, 2, 3, 4], parameters=parameters)) == ["1-2", "3-4"]


def test_sequential_pairs_are_neighbours_only():
    parameters = PairParameters(adjacency="sequential")
    with pytest.warns(UserWarning, match="UNPAIRED"):
        pairs = pair_exposures([1.0, 2.0, 1.0, 3.0, 3.0], [1, 2, 3, 4, 5], parameters=parameters)
    assert labels(pairs) == ["4-5"]


def test_a_sequential_run_is_measured_from_its_first_member():
    parameters = PairParameters(adjacency="sequential", atol=0.1, rtol=0.0, use_extra_pairs=True)
    pairs = pair_exposures([1.0, 1.08, 1.16, 1.2], [1, 2, 3, 4], parameters=parameters)
    assert labels(pairs) == ["1-2", "3-4"]


def test_ids_are_taken_two_by_two_whatever_the_key_says():
    with pytest.warns(UserWarning, match=r"odd \(UNPAIRED\): 9"):
        pairs = pair_exposures(None, [4, 3, 9, 1, 2], mode="id")
    assert labels(pairs) == ["1-2", "3-4"]
    assert pairs["pair_key"].values.tolist() == [0.0, 1.0]
    assert status_of(pairs, 9) == PairStatus.UNPAIRED


def test_no_exposures_are_no_pairs_and_no_error():
    pairs = pair_exposures([], [], exposure_time=[])
    assert dict(pairs.sizes) == {"pair": 0, "exposure": 0}
    assert pairs["exposure_1"].dtype == np.int64


@pytest.mark.parametrize(
    ("key", "exposure", "options", "message"),
    [
        ([1.0, 1.0], [3, 3], {}, "repeated: 3"),
        ([1.0], [3, 4], {}, "key has shape"),
        ([1.0, 1.0], [3, 4], {"mode": "colour"}, "'time', 'flux' or 'id'"),
        (None, [3, 4], {"mode": "time"}, "only for mode 'id'"),
        ([1.0, 1.0], [3.5, 4.5], {}, "integer ids"),
        ([1.0, 1.0], [3, 4], {"exposure_time": [1.0]}, "exposure_time has shape"),
    ],
)
def test_misuse_is_named(key, exposure, options, message):
    with pytest.raises(ValueError, match=message):
        pair_exposures(key, exposure, **options)


@given(
    st.lists(st.sampled_from([1.0, 1.003, 2.0, 5.0, np.nan]), min_size=0, max_size=12),
    st.randoms(use_true_random=False),
    st.sampled_from(["any", "sequential"]),
    st.booleans(),
    st.sampled_from(["time", "flux", "id"]),
)
def test_the_order_of_exposures_does_not_matter(keys, random, adjacency, extra, mode):
    parameters = PairParameters(adjacency=adjacency, use_extra_pairs=extra, mode=mode)
    ids = list(range(100, 100 + len(keys)))
    places = list(range(len(keys)))
    random.shuffle(places)
    expected = quietly(keys, ids, exposure_time=keys, parameters=parameters)
    shuffled = [keys[i] for i in places]
    found = quietly(
        shuffled, [ids[i] for i in places], exposure_time=shuffled, parameters=parameters
    )
    xr.testing.assert_identical(found, expected)


def test_no_exposure_is_in_two_pairs_and_every_other_has_a_code():
    rng = np.random.default_rng(1)
    pairs = quietly(rng.choice([1.0, 2.0, 3.0, np.nan], 101), np.arange(101))
    members = np.concatenate([pairs["exposure_1"], pairs["exposure_2"]])
    assert np.unique(members).size == members.size
    ok = pairs["exposure"].values[pairs["exposure_status"].values == PairStatus.OK]
    assert sorted(members) == sorted(ok)


def measured(levels_1, levels_2, first):
    levels_1, levels_2 = np.asarray(levels_1, float), np.asarray(levels_2, float)
    mean = 0.5 * (levels_1 + levels_2)
    return xr.Dataset(
        {
            "mean": (("pair", "amp"), np.stack([mean, mean], axis=1)),
            "mean_delta": (("pair", "amp"), np.stack([levels_2 - levels_1] * 2, axis=1)),
            "exposure_1": ("pair", first),
        }
    )


def test_a_lost_fifth_exposure_is_named_where_the_mismatch_starts():
    level = {i: 1000.0 * 1.3 ** ((i + 1) // 2) for i in range(1, 13) if i != 5}
    with pytest.warns(UserWarning, match=r"UNPAIRED\): 12"):
        pairs = pair_exposures(None, list(level), mode="id")
    first, second = pairs["exposure_1"].values, pairs["exposure_2"].values
    table = measured([level[i] for i in first], [level[i] for i in second], first)
    with pytest.warns(UserWarning, match="from exposure 6 on") as caught:
        assert first_shifted_exposure(table) == 6
    assert len(caught) == 1


def test_a_single_mismatched_pair_is_no_shift():
    table = measured([1.0, 2.0, 3.0, 4.0], [1.0, 2.5, 3.0, 4.4], [1, 3, 5, 7])
    assert first_shifted_exposure(table) is None


def test_pairs_without_a_mean_do_not_hide_a_shift():
    table = measured([1.0, 2.0, 3.0, np.nan], [1.0, 2.5, 3.6, np.nan], [1, 3, 6, 8])
    with pytest.warns(UserWarning, match="from exposure 3 on"):
        assert first_shifted_exposure(table) == 3


def test_a_limit_must_be_positive():
    with pytest.raises(ValueError, match="max_pair_mismatch"):
        first_shifted_exposure(measured([1.0], [1.0], [1]), max_pair_mismatch=0.0)
