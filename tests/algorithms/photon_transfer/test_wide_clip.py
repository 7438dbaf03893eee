"""One read of an image gives the clipped statistics, or admits that it does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skyloom.algorithms.photon_transfer.wide_clip import SMALLEST, clipped_mean, one_read
from skyloom.algorithms.statistics import clipped_moments

SIZE = SMALLEST + 12_345


def draw(kind, seed):
    rng = np.random.default_rng(seed)
    image = rng.normal(5e4, 200.0, SIZE)
    good = np.ones(SIZE, np.bool_)
    if kind == "integers":
        image = np.round(image)
    if kind == "coarse":
        image = np.round(rng.normal(50.0, 0.7, SIZE))
    if kind == "masked":
        good = rng.random(SIZE) > 0.3
        image[~good] = np.nan
    if kind == "shaded":
        image += np.linspace(0.0, 5000.0, SIZE)
    if kind == "cosmic rays":
        image[rng.integers(0, SIZE, 60)] += rng.exponential(3000.0, 60)
    if kind == "heavy tails":
        image = 5e4 + 200.0 * rng.standard_t(4, SIZE)
    if kind == "two levels":
        image[: SIZE // 2] += 1000.0
    if kind == "stripes":
        image[::2] += 3000.0
    if kind == "constant":
        image[:] = 7.0
    return image.astype(np.float32), good


KINDS = (
    "plain",
    "integers",
    "coarse",
    "masked",
    "shaded",
    "cosmic rays",
    "heavy tails",
    "two levels",
    "stripes",
    "constant",
)


@pytest.mark.parametrize("clip", [2.0, 3.0, 5.5, 8.0])
@pytest.mark.parametrize("kind", KINDS)
def test_the_statistics_are_those_of_the_exact_quartiles(kind, clip):
    for seed in range(3):
        image, good = draw(kind, seed)
        for passes in (1, 2, 3, 5):
            expected = clipped_moments(image, good, clip=clip, iterations=passes)
            found = clipped_mean(image, good, clip, passes)
            assert found.count == expected.count
            assert found.count_used == expected.count_used
            assert found.mean == pytest.approx(expected.mean, rel=1e-12)
            assert found.variance == pytest.approx(expected.variance, rel=1e-10)
            assert found.half_width == pytest.approx(expected.half_width, rel=1e-10)


@pytest.mark.parametrize("kind", ["plain", "integers", "masked", "shaded"])
def test_flats_are_read_once(kind):
    image, good = draw(kind, 1)
    assert one_read(image, good.view(np.uint8), 5.5, 3)[0]


def test_a_sample_that_misleads_is_noticed():
    # the places that the sample looks at hold one number, all others another distribution
    image, good = draw("plain", 1)
    looked_at = (np.arange(1 << 14) * 2_654_435_761) % SIZE
    image[looked_at] = np.random.default_rng(2).normal(5e4, 20.0, looked_at.size)
    assert not one_read(image, good.view(np.uint8), 5.5, 3)[0]
    expected = clipped_moments(image, good, clip=5.5)
    assert clipped_mean(image, good, 5.5, 3).variance == pytest.approx(expected.variance, rel=1e-12)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(3.5, 7.0), st.floats(0.0, 3e-4), st.floats(3.0, 9.0))
def test_values_next_to_the_edges_are_on_the_right_side(seed, clip, fraction, where):
    rng = np.random.default_rng(seed)
    image = rng.normal(0.0, 1.0, SIZE).astype(np.float32)
    hit = rng.random(SIZE) < fraction
    image[hit] = where + rng.normal(0.0, 0.3, hit.sum())
    good = np.ones(SIZE, np.bool_)
    expected = clipped_moments(image, good, clip=clip)
    found = clipped_mean(image, good, clip, 3)
    assert found.count_used == expected.count_used
    assert found.variance == pytest.approx(expected.variance, rel=1e-10)


def test_few_or_no_values_are_left_to_the_general_statistics():
    assert clipped_mean(np.arange(10, dtype=np.float32), np.ones(10, bool), 3.0, 3).mean == 4.5
    image, good = draw("plain", 1)
    nothing = clipped_mean(image, np.zeros_like(good), 5.5, 3)
    assert nothing.count == 0
    assert np.isnan(nothing.mean)
    good[:] = False
    good[5] = True
    assert clipped_mean(image, good, 5.5, 3).mean == float(image[5])
