"""The kernel of clipped statistics against plain numpy, on sets small, large and hostile."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from skyloom.algorithms import sampled_clipping
from skyloom.algorithms.order_statistics import order_statistics, value_at_rank
from skyloom.algorithms.statistics import ClippedMoments, clipped_moments

LARGE = 600_000  # well above the size from which a sample leads
EXACT = ("count", "count_used", "median", "iqr")


def plain_clipped_moments(values, good=None, clip=3.0, iterations=3):
    """Return the clipped statistics in plain numpy, as the specification words them."""
    values = np.asarray(values, dtype=np.float64)
    valid = np.isfinite(values) if good is None else np.isfinite(values) & (np.asarray(good) != 0)
    v = values[valid]
    if v.size == 0:
        return dict.fromkeys(ClippedMoments._fields, np.nan) | {"count": 0, "count_used": 0}
    lower, median, upper = np.quantile(v, [0.25, 0.5, 0.75])
    center, half_width = median, clip * 0.741301109252802 * (upper - lower)
    mean = variance = np.nan
    for index in range(iterations):
        if index > 0:
            center = mean
            half_width = half_width if v.size == 1 else clip * np.sqrt(variance)
        d = (v - center)[np.abs(v - center) <= half_width]
        mean = center + d.mean() if d.size else np.nan
        variance = d.var(ddof=1) if d.size > 1 else np.nan
    fields = (v.size, d.size, mean, variance, median, upper - lower, center, half_width)
    return dict(zip(ClippedMoments._fields, fields, strict=True))


def assert_matches(moments: ClippedMoments, expected: dict[str, float], rel: float = 1e-12) -> None:
    scale = abs(expected["mean"]) + expected["half_width"]
    for name, value in expected.items():
        if name in ("count", "count_used"):
            assert getattr(moments, name) == value, name
        else:
            # a mean near zero is as exact as the values it is the mean of
            absolute = rel * scale if name in ("mean", "center", "median", "iqr") else 0.0
            assert getattr(moments, name) == pytest.approx(
                value, rel=rel, abs=absolute, nan_ok=True
            ), name


def large_sets() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(20)
    normal = rng.normal(1000.0, 30.0, LARGE)
    flux = np.where(rng.random(LARGE) < 0.1, rng.exponential(600.0, LARGE), 0.0)
    return {
        "gaussian": normal,
        "whole numbers": np.rint(normal / 20.0),
        "two values": (normal > 1010.0).astype(float),
        "all equal": np.full(LARGE, 7.25),
        "three quarters equal": np.where(rng.random(LARGE) < 0.75, 3.0, normal),
        "sources": normal + flux,
        "sorted": np.sort(normal),
        "ramp": np.arange(LARGE, dtype=float),
        "period of the sampling": np.where(np.arange(LARGE) % 9 < 3, normal, -normal),
        "without a second moment": rng.standard_cauchy(LARGE),
        "over many decades": np.exp(rng.normal(0.0, 12.0, LARGE)),
        "uniform": rng.random(LARGE),
        "two far peaks": np.where(rng.random(LARGE) < 0.5, normal, normal + 1e6),
    }


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", large_sets())
def test_a_large_set_gives_what_plain_numpy_gives(name, dtype):
    values = large_sets()[name].astype(dtype)
    assert_matches(clipped_moments(values), plain_clipped_moments(values))


@pytest.mark.parametrize("clip", [0.3, 1.0, 2.0, 5.5, 1e9])
@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_any_clip_and_number_of_passes_hold_on_a_large_set(clip, iterations):
    values = large_sets()["sources"].astype(np.float32)
    options = {"clip": clip, "iterations": iterations}
    assert_matches(clipped_moments(values, **options), plain_clipped_moments(values, **options))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.97, 0.9999, 1.0])
def test_any_share_of_masked_values_holds_on_a_large_set(share):
    rng = np.random.default_rng(3)
    values = large_sets()["sources"].astype(np.float32)
    values[::1000] = np.nan
    values[1::1000] = np.inf
    good = rng.random(LARGE) >= share
    assert_matches(clipped_moments(values, good), plain_clipped_moments(values, good))


def sampled_places(size: int) -> np.ndarray:
    """Return where the sample is drawn, by drawing from an image of its own indices."""
    return sampled_clipping.draw_sample(*kernel_arguments(np.arange(float(size)))).astype(int)


def kernel_arguments(values: np.ndarray) -> tuple[np.ndarray, ...]:
    dtype = values.dtype
    constants = np.array([np.nan, np.finfo(dtype).max, 1.0], dtype)
    return values, np.empty(0, np.uint8), np.zeros(2, np.uint8), constants


def test_a_sample_that_misleads_about_the_quartiles_changes_nothing():
    rng = np.random.default_rng(4)
    values = rng.normal(100.0, 5.0, LARGE)
    places = sampled_places(LARGE)
    values[places] = rng.normal(0.0, 1.0, places.size)
    held, _ = sampled_clipping.sampled(*kernel_arguments(values), 3.0, 3)
    assert not held
    assert_matches(clipped_moments(values), plain_clipped_moments(values))


def test_a_sample_that_misleads_about_the_clip_edges_changes_nothing():
    rng = np.random.default_rng(5)
    values = rng.normal(0.0, 1.0, LARGE)
    shoulders = rng.random(LARGE) < 0.03
    shoulders[sampled_places(LARGE)] = False
    size = int(shoulders.sum())
    values[shoulders] = rng.choice([-1.0, 1.0], size) * rng.uniform(2.0, 2.8, size)
    held, _ = sampled_clipping.sampled(*kernel_arguments(values), 3.0, 3)
    assert held
    assert_matches(clipped_moments(values), plain_clipped_moments(values))


def exact_clipped_moments(values, good, clip, iterations):
    """Return count, count used, mean and variance in rational arithmetic, and if they are decided.

    They are not where a value lies so near to the edge of a pass that rounding decides about it.
    A pass that leaves equal values is the last.
    """
    valid = [Fraction(float(value)) for value in values[good & np.isfinite(values)]]
    if not valid:
        return 0, 0, np.nan, np.nan, True
    size = max(1e-300, *(abs(float(value)) for value in valid))
    lower, median, upper = np.quantile([float(value) for value in valid], [0.25, 0.5, 0.75])
    center, half_width = Fraction(float(median)), clip * 0.741301109252802 * (upper - lower)
    decided = True
    used, mean, variance = valid, center, Fraction(0)
    for index in range(iterations):
        if index > 0 and len(valid) > 1:
            center, half_width = mean, clip * float(variance) ** 0.5
        distances = np.array([abs(float(value - center)) for value in valid])
        near = np.abs(distances - half_width) <= 1e-7 * size
        decided &= not (near & ((distances > 0) | (half_width > 0))).any()
        used = [
            value for value, inside in zip(valid, distances <= half_width, strict=True) if inside
        ]
        if not used or (len(used) == 1 < len(valid) and index < iterations - 1):
            return len(valid), 0, np.nan, np.nan, decided  # without a width passes keep nothing
        mean = sum(used) / Fraction(len(used))
        squares = sum((value - mean) ** 2 for value in used)
        variance = squares / Fraction(max(len(used) - 1, 1))
        if len(used) > 1 and not variance:
            break
    spread = float(variance) if len(used) > 1 else np.nan
    return len(valid), len(used), float(mean), spread, decided


@given(
    values=hnp.arrays(
        np.float32,
        st.integers(0, 900),
        elements=st.floats(-1e6, 1e6, width=32) | st.sampled_from([np.nan, np.inf, -np.inf, 0.0]),
    ),
    seed=st.integers(0, 99),
    clip=st.sampled_from([0.5, 3.0, 5.5]),
    iterations=st.integers(1, 4),
)
@example(values=np.array([4, 1, 4, 4] + [0] * 11, np.float32), seed=0, clip=0.5, iterations=3)
@settings(deadline=None, max_examples=300)
def test_a_small_set_gives_what_exact_arithmetic_gives(values, seed, clip, iterations):
    good = np.random.default_rng(seed).random(values.shape) < 0.8
    count, used, mean, variance, decided = exact_clipped_moments(values, good, clip, iterations)
    assume(decided)
    moments = clipped_moments(values, good, clip=clip, iterations=iterations)
    assert (moments.count, moments.count_used) == (count, used)
    if count:
        valid = values[good & np.isfinite(values)].astype(float)
        size = np.abs(valid).max()
        assert moments.median == pytest.approx(np.median(valid), rel=1e-12, abs=1e-15 * size)
        assert moments.mean == pytest.approx(mean, rel=1e-9, abs=1e-12 * size, nan_ok=True)
        assert moments.variance == pytest.approx(
            variance, rel=1e-9, abs=1e-12 * size**2, nan_ok=True
        )


@given(
    values=hnp.arrays(np.float64, st.integers(1, 3000), elements=st.floats(-1e300, 1e300)),
    ranks=st.lists(st.floats(0.0, 1.0), min_size=1, max_size=6),
)
@settings(deadline=None, max_examples=100)
def test_order_statistics_are_the_elements_of_the_sorted_set(values, ranks):
    wanted = np.array(sorted(int(rank * (values.size - 1)) for rank in ranks))
    found = np.empty(wanted.size)
    order_statistics(values.copy(), wanted, found)
    np.testing.assert_array_equal(found, np.sort(values)[wanted])
    assert value_at_rank(values.copy(), int(wanted[0])) == np.sort(values)[wanted[0]]


@pytest.mark.parametrize("size", [5000, LARGE])
def test_threads_and_repeats_agree_bit_for_bit(size):
    rng = np.random.default_rng(6)
    sets = [rng.normal(index, 1.0, size).astype(np.float32) for index in range(8)]
    serial = [clipped_moments(values) for values in sets]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert list(pool.map(clipped_moments, sets)) == serial


@pytest.mark.parametrize("size", [1000, LARGE])
def test_masking_marking_as_nan_and_removing_are_the_same(size):
    rng = np.random.default_rng(7)
    values = rng.normal(50.0, 3.0, size).astype(np.float32)
    good = rng.random(size) < 0.7
    masked = clipped_moments(values, good)
    assert clipped_moments(np.where(good, values, np.float32(np.nan))) == masked
    removed = clipped_moments(values[good])
    shuffled = clipped_moments(rng.permutation(values[good]))
    for other in (removed, shuffled):
        assert [getattr(other, name) for name in EXACT] == [getattr(masked, name) for name in EXACT]
        assert other.mean == pytest.approx(masked.mean, rel=1e-14)
        assert other.variance == pytest.approx(masked.variance, rel=1e-13)


@pytest.mark.parametrize(
    "values",
    [
        np.arange(20, dtype=np.uint16),
        np.arange(20, dtype=np.int32),
        np.arange(20, dtype=">f4"),
        np.arange(20, dtype=np.float16),
        np.arange(40, dtype=np.float64)[::2] / 2.0,
        np.arange(20, dtype=np.float32).reshape(4, 5).T,
        np.broadcast_to(np.arange(20.0), (3, 20))[0],
    ],
    ids=["uint16", "int32", "big endian", "half", "strided", "transposed", "read only"],
)
def test_any_dtype_and_layout_is_accepted_and_left_alone(values):
    before = values.copy()
    moments = clipped_moments(values)
    assert (moments.count, moments.median, moments.mean) == (20, 9.5, 9.5)
    np.testing.assert_array_equal(values, before)


def test_integers_too_wide_for_float32_keep_all_their_digits():
    values = np.array([2**24, 2**24 + 1, 2**24 + 1], dtype=np.int32)
    assert clipped_moments(values).median == 2**24 + 1


def test_bytes_that_are_not_zero_or_one_mean_good_too():
    assert clipped_moments(np.arange(4.0), np.array([0, 1, 2, 255], np.uint8)).count == 3


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        ({"clip": 0.0}, "clip"),
        ({"clip": np.nan}, "clip"),
        ({"iterations": 0}, "iterations"),
        ({"good": np.ones(3, bool)}, "good has shape"),
    ],
)
def test_misuse_is_named(arguments, name):
    with pytest.raises(ValueError, match=name):
        clipped_moments(np.arange(4.0), **arguments)
