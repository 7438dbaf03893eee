"""What clipping does to the variance of a Gaussian, and how to undo it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skyloom.algorithms.clip_correction import (
    clipped_variance_factor,
    truncation_factor,
    unclipped_variance,
)
from skyloom.algorithms.statistics import clipped_moments


@pytest.mark.parametrize(
    ("threshold", "variance", "sigma"),
    [
        (2.0, 0.773741, 1.136847),
        (2.5, 0.911256, None),
        (3.0, 0.973337, 1.013604),
        (4.0, 0.998929, None),
        (5.5, 0.9999988153, 1.0000005924),
    ],
)
def test_a_cut_leaves_the_published_fraction_of_the_variance(threshold, variance, sigma):
    digits = 1e-10 if threshold == 5.5 else 6e-7
    assert truncation_factor(threshold) == pytest.approx(variance, abs=digits)
    if sigma is not None:
        assert truncation_factor(threshold) ** -0.5 == pytest.approx(sigma, abs=digits)


@pytest.mark.parametrize(
    ("iterations", "variance"), [(1, 0.973337), (2, 0.970330), (3, 0.969971), (40, 0.969922)]
)
def test_each_pass_at_three_sigma_leaves_the_published_variance(iterations, variance):
    assert clipped_variance_factor(3.0, iterations) == pytest.approx(variance, abs=6e-7)


@pytest.mark.parametrize(
    ("clip", "bias"), [(2.0, -0.20), (2.5, -0.034), (3.0, -0.0035), (5.5, -2e-11)]
)
def test_dividing_by_the_factor_of_the_nominal_clip_leaves_the_stated_bias(clip, bias):
    left = clipped_variance_factor(clip, 3) / float(truncation_factor(clip)) - 1.0
    assert left == pytest.approx(bias, rel=0.15)


@given(threshold=st.floats(0.5, 12.0), sigma=st.floats(1e-6, 1e6))
def test_the_variance_of_a_cut_gaussian_is_recovered_at_any_threshold(threshold, sigma):
    variance = sigma**2 * truncation_factor(threshold)
    assert unclipped_variance(variance, threshold * sigma) == pytest.approx(sigma**2, rel=1e-9)


def test_the_closed_form_and_its_series_meet():
    below, above = truncation_factor(np.nextafter(0.02, 0)), truncation_factor(0.02)
    assert below == pytest.approx(above, rel=1e-11)


def test_passes_at_two_sigma_are_undone_for_a_gaussian_sample():
    values = np.random.default_rng(5).standard_normal(2_000_000)
    moments = clipped_moments(values, clip=2.0, iterations=3)
    assert moments.variance < 0.65
    assert unclipped_variance(moments.variance, moments.half_width) == pytest.approx(1.0, abs=0.006)


def test_no_cut_corrects_nothing_and_no_variance_stays_zero():
    assert unclipped_variance(4.0, np.inf) == 4.0
    assert unclipped_variance(0.0, 0.0) == 0.0


@pytest.mark.parametrize(
    ("variance", "half_width"), [(1.0, 3.0**0.5), (2.0, 1.0), (np.nan, 1.0), (1.0, np.nan)]
)
def test_a_variance_that_no_cut_gaussian_has_gives_nan(variance, half_width):
    assert np.isnan(unclipped_variance(variance, half_width))


def test_arrays_are_corrected_element_by_element():
    corrected = unclipped_variance([[0.5, 0.9]], [[2.0], [3.0]])
    assert corrected.shape == (2, 2)
    assert corrected[1, 0] == unclipped_variance(0.5, 3.0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: truncation_factor(-1.0), "threshold"),
        (lambda: unclipped_variance(-1.0, 1.0), "variance"),
        (lambda: unclipped_variance(1.0, -1.0), "half_width"),
        (lambda: clipped_variance_factor(0.0, 3), "clip"),
        (lambda: clipped_variance_factor(3.0, 0), "iterations"),
    ],
)
def test_impossible_arguments_are_named(call, name):
    with pytest.raises(ValueError, match=name):
        call()
