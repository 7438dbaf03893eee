"""Polynomials over bins: their terms, fits, ranks and images."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial import chebyshev

from skyloom.algorithms.background import (
    chebyshev_design,
    chebyshev_image,
    chebyshev_terms,
    fit_background,
    fit_chebyshev,
    measure_background,
)
from skyloom.algorithms.errors import (
    ConfigurationError,
    GeometryError,
    NonFiniteVarianceWarning,
    NoUsableDataError,
    ReducedOrderWarning,
)
from tests.algorithms.background.scenes import bins_of, image_of

BOX = (10, 90, -20, 100)


def positions(seed=0, size=200):
    rng = np.random.default_rng(seed)
    return rng.uniform(-20, 99, size), rng.uniform(10, 89, size)


@pytest.mark.parametrize(("order", "terms"), [(0, 1), (1, 3), (2, 6), (6, 28)])
def test_the_triangular_set_has_the_stated_number_of_terms(order, terms):
    found = chebyshev_terms(order)
    assert len(found) == terms
    assert found[0].tolist() == [0, 0]
    # by order in y, then in x
    assert found.tolist() == sorted(found.tolist(), key=lambda term: (term[1], term[0]))


def test_unequal_orders_make_a_trapezoidal_set():
    found = chebyshev_terms((1, 3)).tolist()
    assert found == [[0, 0], [1, 0], [2, 0], [3, 0], [0, 1], [1, 1], [2, 1]]


def test_the_design_holds_products_of_chebyshev_polynomials_of_the_outer_edges():
    x, y = positions()
    design = chebyshev_design(x, y, BOX, 3)
    u, w = (2 * x - 79) / 120, (2 * y - 99) / 80
    for column, (i, j) in enumerate(chebyshev_terms(3)):
        expected = chebyshev.chebval(u, np.eye(4)[i]) * chebyshev.chebval(w, np.eye(4)[j])
        np.testing.assert_allclose(design[:, column], expected, atol=1e-13)
    corners = chebyshev_design([-20.5, 99.5], [9.5, 89.5], BOX, 1)
    assert corners.tolist() == [[1, -1, -1], [1, 1, 1]]


def test_a_polynomial_is_found_again_with_its_covariance():
    rng = np.random.default_rng(1)
    x, y = positions(1)
    truth = rng.normal(size=10)
    design = chebyshev_design(x, y, BOX, 3)
    sigma = rng.uniform(0.5, 5.0, x.size)
    exact = fit_chebyshev(x, y, design @ truth, BOX, 3, weight=sigma**-2)
    np.testing.assert_allclose(exact.coefficients, truth, atol=1e-10)
    assert exact.rank == 10
    assert exact.dof == 190
    normal = design.T @ (design / sigma[:, None] ** 2)
    np.testing.assert_allclose(exact.covariance, np.linalg.inv(normal), rtol=1e-8, atol=1e-12)
    pulls, chi2 = [], []
    for _ in range(400):
        values = design @ truth + sigma * rng.normal(size=x.size)
        fit = fit_chebyshev(x, y, values, BOX, 3, weight=sigma**-2)
        pulls.append((fit.coefficients - truth) / np.sqrt(np.diag(fit.covariance)))
        chi2.append(fit.chi2 / fit.dof)
    assert np.std(pulls) == pytest.approx(1.0, abs=0.06)
    assert np.mean(chi2) == pytest.approx(1.0, abs=0.02)


def test_values_without_number_or_weight_are_left_out():
    x, y = positions(2)
    values = 3.0 + 0.1 * x
    weight = np.ones(x.size)
    values[:5] = np.nan, np.inf, 1e6, 1e6, 1e6
    weight[2:5] = 0.0, -1.0, np.nan
    fit = fit_chebyshev(x, y, values, BOX, 1, weight=weight)
    assert fit.coefficients[0] == pytest.approx(3.0 + 0.1 * 39.5, rel=1e-12)
    assert fit.dof == x.size - 5 - 3
    with pytest.raises(NoUsableDataError, match="no value"):
        fit_chebyshev(x, y, np.full(x.size, np.nan), BOX, 1)


def test_terms_that_positions_do_not_determine_are_dropped_from_the_highest_down():
    x, y = positions(3)
    on_a_line = fit_chebyshev(x, np.full(x.size, 40.0), 2.0 + 0.3 * x, BOX, 3)
    kept = on_a_line.terms[np.diag(on_a_line.covariance) > 0]
    assert on_a_line.rank == 4
    assert kept.tolist() == [[0, 0], [1, 0], [2, 0], [3, 0]]
    predicted = chebyshev_design(x, np.full(x.size, 40.0), BOX, 3) @ on_a_line.coefficients
    np.testing.assert_allclose(predicted, 2.0 + 0.3 * x, atol=1e-9)
    few = fit_chebyshev(x[:2], y[:2], [1.0, 5.0], BOX, 6)
    assert few.rank == 2
    assert np.isfinite(few.coefficients).all()
    assert few.condition < 1e6


def test_weighting_by_variance_beats_weighting_by_its_root():
    # what fits lose that take a standard error for a variance: 1.04, 1.10, 1.41
    rng = np.random.default_rng(4)
    for span, published in ((2.0, 1.04), (3.0, 1.10), (10.0, 1.41)):
        sigma = span ** rng.uniform(0, 1, 20000)
        best = 1.0 / np.sum(sigma**-2)
        other = np.sum((sigma**-1 / np.sum(sigma**-1)) ** 2 * sigma**2)
        assert other / best == pytest.approx(published, abs=0.03)


def test_the_background_of_a_curved_sky_is_met():
    y, x = np.mgrid[:128, :160]
    truth = 500.0 + 0.3 * x + 0.002 * (y - 60.0) ** 2
    noise = np.random.default_rng(5).normal(0.0, 2.0, truth.shape)
    background = measure_background(image_of(truth + noise, y=7, x=-3), bin_size=(16, 16))
    fit = fit_background(background, 2)
    image = chebyshev_image(fit)
    assert image["y"].values[0] == 7
    # the mean of a bin lies above its centre by the curvature, 0.002 (16² - 1) / 12
    np.testing.assert_allclose(image, truth + 0.0425, atol=0.25)


@pytest.mark.parametrize("box", [(0, 5, 3, 4), (17, 40, 0, 60)])
def test_a_part_of_a_polynomial_has_the_bits_of_the_whole(box):
    x, y = np.meshgrid(np.arange(60.0), np.arange(40.0))
    values = np.random.default_rng(6).normal(size=x.shape)
    fit = fit_chebyshev(x, y, values, (0, 40, 0, 60), 6)
    whole = chebyshev_image(fit)
    part = chebyshev_image(fit, box)
    np.testing.assert_array_equal(part, whole.values[box[0] : box[1], box[2] : box[3]])
    expected = chebyshev_design(x, y, (0, 40, 0, 60), 6) @ fit.coefficients
    np.testing.assert_allclose(whole, expected, atol=1e-6)


def test_the_order_is_reduced_to_what_the_bins_allow():
    given = bins_of(np.random.default_rng(7).normal(size=(4, 9)), (0, 40, 0, 90))
    with pytest.warns(ReducedOrderWarning, match=r"\(3, 3\) is used"):
        fit = fit_background(given, weighted=False)
    assert len(fit.coefficients) == 10
    with pytest.warns(ReducedOrderWarning):
        assert fit_background(given, (5, 6), weighted=False).terms.max(axis=0).tolist() == [6, 3]
    with pytest.raises(ConfigurationError, match="order 6 needs more than"):
        fit_background(given, weighted=False, undersampling="throw")


def test_bins_without_a_variance_are_left_out_and_counted():
    level = np.full((5, 6), 10.0)
    variance = np.ones((5, 6))
    level[0, :3] = 1e5
    variance[0, :3] = 0.0, -1.0, np.nan
    level[4, 4] = np.nan
    given = bins_of(level, (0, 50, 0, 60), variance=variance)
    with pytest.warns(NonFiniteVarianceWarning, match="3 bins"):
        fit = fit_background(given, 2)
    np.testing.assert_allclose(chebyshev_image(fit), 10.0, rtol=1e-6)
    with pytest.warns(NonFiniteVarianceWarning), pytest.raises(NoUsableDataError):
        fit_background(given.assign(variance=given["variance"] * 0), 2)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: chebyshev_terms(-1), ConfigurationError, "order must be >= 0"),
        (lambda: chebyshev_design([0.0], [0.0], (0, 0, 0, 1), 1), GeometryError, "empty"),
        (lambda: chebyshev_design([0.0], [0.0, 1.0], BOX, 1), GeometryError, "x has shape"),
        (lambda: fit_chebyshev([0.0], [0.0], [0.0, 1.0], BOX, 1), GeometryError, "one shape"),
        (
            lambda: fit_background(bins_of(np.ones((3, 3)), (0, 9, 0, 9)), undersampling="no"),
            ConfigurationError,
            "reduce or throw",
        ),
        (
            lambda: chebyshev_image(fit_chebyshev([0.0], [10.0], [1.0], BOX, 0), (0, 20, 0, 9)),
            GeometryError,
            "part of",
        ),
    ],
)
def test_misuse_is_named(call, error, text):
    with pytest.raises(error, match=text):
        call()
