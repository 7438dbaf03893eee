"""Levels closer together than the tolerance, as short exposures have them."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from skyloom.algorithms.photon_transfer.pairing import pair_exposures
from skyloom.algorithms.vocabulary import PairStatus


def test_levels_that_step_by_less_than_the_tolerance_keep_their_pairs() -> None:
    times = np.repeat(np.arange(1, 18) * 0.86e-3, 2)
    pairs = pair_exposures(times, np.arange(34))
    assert pairs["pair"].values.tolist() == [f"{i}-{i + 1}" for i in range(0, 34, 2)]
    assert (pairs["exposure_status"] == PairStatus.OK).all()


def test_times_that_differ_within_the_tolerance_still_pair_beside_exact_levels() -> None:
    times = [1.0, 1.0, 1.001, 1.001, 1.0021, 1.0022]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pairs = pair_exposures(times, [1, 2, 3, 4, 5, 6])
    assert pairs["pair"].values.tolist() == ["1-2", "3-4", "5-6"]


def test_a_third_exposure_of_one_level_is_extra_and_spoils_no_neighbour() -> None:
    times = [1.0, 1.0, 1.0, 1.001, 1.001]
    with pytest.warns(UserWarning, match="EXTRA"):
        pairs = pair_exposures(times, [1, 2, 3, 4, 5])
    assert pairs["pair"].values.tolist() == ["1-2", "4-5"]
    assert pairs["exposure_status"].sel(exposure=3) == PairStatus.EXTRA
