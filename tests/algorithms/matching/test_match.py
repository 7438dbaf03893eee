"""Backgrounds of visits matched to each other: identities, priors, groups, failures."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import xarray as xr
from numpy.typing import NDArray
from scipy.linalg import block_diag

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.errors import (
    ConfigurationError,
    DegenerateFitError,
    DroppedInputWarning,
    GeometryError,
    NoUsableDataError,
    PoorlyDeterminedWarning,
)
from skyloom.algorithms.matching import (
    MatchParameters,
    apply_offset,
    basis_at_bins,
    extrapolated_bins,
    field_image,
    match_backgrounds,
    match_basis,
    offset_errors,
    offset_image,
)
from skyloom.algorithms.matching.match_inputs import grid_of_background
from skyloom.algorithms.matching.match_priors import roughness
from skyloom.algorithms.simulate import TractParameters, simulate_tract

PLAIN = MatchParameters(robust=False)
DIMS = (v.VISIT, v.TRACT_Y, v.TRACT_X)


def background_of(level: NDArray[Any], sigma: Any = 1.0) -> xr.Dataset:
    """Return levels, (visit, y, x), as a tract background; NaN is no data."""
    level = np.asarray(level, np.float64)
    variance = np.broadcast_to(np.asarray(sigma, np.float64) ** 2, level.shape)
    return xr.Dataset(
        {
            "level": (DIMS, level, {"units": "nJy"}),
            "variance": (DIMS, variance.copy(), {"units": "nJy2"}),
        },
        {v.VISIT: np.arange(len(level)) + 1},
        {"tract_shape": [10 * size for size in level.shape[1:]], "bin_size": [10, 10]},
    )


def fields_of(match: xr.Dataset) -> NDArray[np.float64]:
    """Return the fields of visits in bins, (visit, y, x)."""
    functions = basis_at_bins(match_basis(match), grid_of_background(match))
    return np.einsum("yxk,vk->vyx", functions, match["coefficients"].values)


def error_of(match: xr.Dataset, made: Any) -> float:
    """Return the rms error of fields where visits overlap, less what all share."""
    rest = fields_of(match) - made.truth["field"].values
    seen = np.isfinite(made.background["level"].values)
    seen &= seen.sum(axis=0) > 1
    return float(np.sqrt(np.mean((rest - rest.mean(axis=0))[seen] ** 2)))


@pytest.fixture(scope="module")
def made():
    """Return six visits of a small tract, float64."""
    drawn = simulate_tract(
        np.random.default_rng(5), parameters=TractParameters(visits=6, bins=20, gaps=0)
    )
    level = drawn.background["level"].astype(np.float64)
    return drawn._replace(background=drawn.background.assign(level=level))


def test_constants_are_found(made):
    constants = np.array([3.0, -1.0, 4.0, 1.0, -5.0, 9.0])
    exact = made.truth["sky"].values + constants[:, None, None] + 0 * made.background["level"]
    background = made.background.assign(level=exact)
    found = match_backgrounds(background, parameters=MatchParameters(order=0))
    np.testing.assert_allclose(
        found["coefficients"].values[:, 0], constants - constants.mean(), atol=1e-9
    )
    assert float(found["overlap_rms_after"]) < 1e-9


@pytest.mark.parametrize("order", [1, 3])
def test_polynomials_of_the_basis_are_exact(made, order):
    basis = match_basis(
        xr.Dataset(attrs=made.background.attrs | {"basis": "polynomial", "order": order})
    )
    theta = np.random.default_rng(1).normal(0, 50, (6, len(basis.terms)))
    fields = np.einsum(
        "yxk,vk->vyx", basis_at_bins(basis, grid_of_background(made.background)), theta
    )
    level = np.where(
        np.isfinite(made.background["level"]), made.truth["sky"].values + fields, np.nan
    )
    found = match_backgrounds(
        made.background.assign(level=(DIMS, level)), parameters=MatchParameters(order=order)
    )
    np.testing.assert_allclose(
        found["coefficients"].values, theta - theta.mean(axis=0), atol=50 * 1e-6
    )


def test_agrees_with_least_squares_where_the_sky_is_an_unknown_too(made):
    # 50 bins, six visits: all levels in one design of skies and planes
    rows = slice(6, 16), slice(7, 12)
    level = made.background["level"].values[:, rows[0], rows[1]]
    sigma = made.truth["noise"].values[:, None, None]
    background = background_of(level, sigma)
    functions = basis_at_bins(
        match_basis(xr.Dataset(attrs=background.attrs | {"basis": "polynomial", "order": 1})),
        grid_of_background(background),
    ).reshape(50, 3)
    visit, bin_ = np.nonzero(np.isfinite(level.reshape(6, 50)))
    design = np.zeros((visit.size, 50 + 18))
    design[np.arange(visit.size), bin_] = 1
    for term in range(3):
        design[np.arange(visit.size), 50 + 3 * visit + term] = functions[bin_, term]
    root = 1 / np.broadcast_to(sigma, level.shape).reshape(6, 50)[visit, bin_]
    values = level.reshape(6, 50)[visit, bin_]
    answer = np.linalg.lstsq(design * root[:, None], values * root, rcond=1e-12)[0]
    theta = answer[50:].reshape(6, 3)
    chosen = PLAIN.model_copy(update={"rescale_errors": False})
    found = match_backgrounds(background, parameters=chosen)
    np.testing.assert_allclose(
        found["coefficients"].values, theta - theta.mean(axis=0), rtol=0, atol=1e-7
    )
    # and its covariance is that of the same design, projected onto fields without a mean
    center = np.kron(np.eye(6) - 1 / 6, np.eye(3))
    inverse = np.linalg.pinv((design * root[:, None]).T @ (design * root[:, None]), rcond=1e-12)
    expected = center @ inverse[50:, 50:] @ center
    covariance = found["coefficient_covariance"].values
    np.testing.assert_allclose(
        block_diag(*covariance)[:3, :3], expected[:3, :3], rtol=1e-6, atol=1e-10
    )


def test_weighted_squares_about_the_mean_are_those_of_all_pairs():
    rng = np.random.default_rng(2)
    d, w = rng.normal(0, 1, 7), rng.uniform(0.1, 3, 7)
    mean = (w * d).sum() / w.sum()
    pairs = np.triu(np.outer(w, w) / w.sum() * np.subtract.outer(d, d) ** 2, 1).sum()
    assert (w * (d - mean) ** 2).sum() == pytest.approx(pairs, rel=1e-12)


def test_differences_of_fields_do_not_depend_on_the_gauge(made):
    found = [
        match_backgrounds(made.background, parameters=MatchParameters(**gauge))
        for gauge in (
            {"gauge": "mean"},
            {"gauge": "mean", "gauge_weights": "inverse_variance"},
            {"gauge": "reference", "reference_visit": 2},
            {"gauge": "reference", "reference_visit": 5},
            {"gauge": "absolute"},
        )
    ]
    theta = [match["coefficients"].values for match in found]
    for other in theta[1:]:
        np.testing.assert_allclose(other - other[0], theta[0] - theta[0][0], atol=1e-9)
    assert (theta[2][1] == 0).all()
    assert (theta[3][4] == 0).all()
    assert float(found[2]["offset_error"][1]) == 0.0
    np.testing.assert_allclose(theta[0].sum(axis=0), 0, atol=1e-9)
    # the absolute gauge keeps the mean of the planes that fit each visit alone
    assert np.abs(theta[4].mean(axis=0)).max() > 1.0


def test_an_absolute_field_from_elsewhere_sets_the_mean(made):
    known = xr.DataArray(
        np.arange(18.0).reshape(6, 3),
        dims=(v.VISIT, v.COEFFICIENT),
        coords={v.VISIT: made.background[v.VISIT]},
    )
    found = match_backgrounds(
        made.background, parameters=MatchParameters(gauge="absolute"), absolute=known
    )
    np.testing.assert_allclose(found["coefficients"].mean(v.VISIT), known.mean(v.VISIT), atol=1e-9)
    with pytest.raises(ConfigurationError, match=r"lacks visits \[6\]"):
        match_backgrounds(
            made.background,
            parameters=MatchParameters(gauge="absolute"),
            absolute=known.isel({v.VISIT: slice(0, 5)}),
        )


@pytest.mark.parametrize("basis", ["polynomial", "spline"])
def test_the_order_of_visits_does_not_matter(made, basis):
    chosen = MatchParameters(basis=basis, knots=(4, 4))
    order = [3, 0, 5, 1, 4, 2]
    straight = match_backgrounds(made.background, parameters=chosen)
    mixed = match_backgrounds(made.background.isel({v.VISIT: order}), parameters=chosen)
    xr.testing.assert_identical(straight.isel({v.VISIT: order}), mixed)


def test_a_static_image_stays_in_the_sky_and_a_factor_scales_everything(made):
    image = np.random.default_rng(3).normal(0, 1000, made.truth["sky"].shape)
    plain = match_backgrounds(made.background)
    shifted = match_backgrounds(made.background.assign(level=made.background["level"] + image))
    np.testing.assert_allclose(shifted["coefficients"], plain["coefficients"], atol=1e-9 * 1000)
    covered = plain["visit_count"].values > 0
    np.testing.assert_allclose((shifted["sky"] - plain["sky"]).values[covered], image[covered])
    scaled = match_backgrounds(
        made.background.assign(
            level=made.background["level"] * 3.5, variance=made.background["variance"] * 3.5**2
        )
    )
    np.testing.assert_allclose(
        scaled["coefficients"], plain["coefficients"] * 3.5, rtol=1e-9, atol=1e-7
    )


def test_inputs_stay_as_they_are_and_lazy_levels_give_the_same(made):
    before = made.background.copy(deep=True)
    eager = match_backgrounds(made.background)
    xr.testing.assert_identical(made.background, before)
    lazy = match_backgrounds(made.background.chunk({v.VISIT: 1}))
    xr.testing.assert_identical(lazy, eager)


@pytest.mark.parametrize(
    "chosen",
    [
        MatchParameters(robust=False),
        MatchParameters(order=2),
        MatchParameters(basis="spline", knots=(5, 4), smoothing=1e-3, robust=False),
    ],
)
def test_conjugate_gradients_agree_with_the_dense_solution(made, chosen):
    dense = match_backgrounds(made.background, parameters=chosen)
    other = match_backgrounds(
        made.background, parameters=chosen.model_copy(update={"dense_limit": 1})
    )
    assert (dense.attrs["solver"], other.attrs["solver"]) == ("dense", "conjugate_gradients")
    error = np.sqrt(np.einsum("vkk->vk", dense["coefficient_covariance"].values))
    difference = np.abs(dense["coefficients"].values - other["coefficients"].values)
    assert (difference <= 1e-6 * error + 1e-9).all()
    assert other.attrs["chi2"] == pytest.approx(dense.attrs["chi2"], rel=1e-9)


def test_a_smooth_prior_is_that_of_the_penalised_sum_of_squares(made):
    chosen = MatchParameters(basis="spline", knots=(4, 5), smoothing=0.3, robust=False)
    found = match_backgrounds(made.background, parameters=chosen)
    functions = basis_at_bins(match_basis(found), grid_of_background(found)).reshape(-1, 20)
    level = made.background["level"].values.reshape(6, -1)
    good = np.isfinite(level)
    weight = np.where(good, 1 / made.truth["noise"].values[:, None] ** 2, 0.0)

    def cost(theta: NDArray[Any]) -> float:
        rest = np.where(good, level - theta @ functions.T, 0.0)
        total = np.maximum(weight.sum(axis=0), 1e-300)
        rest = rest - (weight * rest).sum(axis=0) / total
        penalty = np.einsum("vk,kl,vl", theta, roughness(match_basis(found)), theta)
        return float((weight * rest**2).sum() + 0.3 * penalty)

    theta = found["coefficients"].values
    best = cost(theta)
    rng = np.random.default_rng(1)
    for size in (1e-3, 1.0):
        assert cost(theta + rng.normal(0, size, theta.shape)) > best


def test_fields_are_recovered_within_their_errors():
    pulls, ratios = [], []
    for seed in range(12):
        made = simulate_tract(
            np.random.default_rng(seed), parameters=TractParameters(visits=8, bins=24)
        )
        found = match_backgrounds(made.background)
        truth = match_truth(made, found)
        error = np.sqrt(np.einsum("vkk->vk", found["coefficient_covariance"].values))
        pulls.append((found["coefficients"].values - truth) / error)
        ratios.append(float(found["overlap_ratio_after"]))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.1)
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.1)
    assert np.mean(ratios) == pytest.approx(1.0, abs=0.02)


def match_truth(made: Any, found: xr.Dataset) -> NDArray[np.float64]:
    """Return the true coefficients of planes, without their mean."""
    functions = basis_at_bins(match_basis(found), grid_of_background(found)).reshape(-1, 3)
    fields = made.truth["field"].values.reshape(len(found[v.VISIT]), -1)
    theta = np.linalg.lstsq(functions, fields.T)[0].T
    return theta - theta.mean(axis=0)


def test_ghosts_and_trails_lose_their_weight():
    scene = {"visits": 24, "bins": 24, "dither": 0.6}
    errors = {}
    for name, spoil in (("clean", {}), ("spoilt", {"ghosts": 30.0, "trails": 15.0})):
        made = simulate_tract(
            np.random.default_rng(3), parameters=TractParameters(**scene, **spoil)
        )
        errors[name] = error_of(match_backgrounds(made.background), made)
        plain = error_of(match_backgrounds(made.background, parameters=PLAIN), made)
    assert errors["spoilt"] < 1.3 * errors["clean"]
    assert plain > 5 * errors["spoilt"]


def test_a_noisy_visit_hardly_moves_the_others():
    made = simulate_tract(np.random.default_rng(4), parameters=TractParameters(visits=8, bins=20))
    noisy = made.background.copy(deep=True)
    rng = np.random.default_rng(9)
    noisy["level"][0] += rng.normal(0, 10, noisy["level"][0].shape).astype(np.float32)
    noisy["variance"][0] += 100
    gauge = MatchParameters(gauge="reference", reference_visit=5, robust=False)
    with_it = match_backgrounds(noisy, parameters=gauge)["coefficients"].values
    without = match_backgrounds(noisy.isel({v.VISIT: slice(1, None)}), parameters=gauge)[
        "coefficients"
    ].values
    own = np.abs(
        with_it[0] - match_backgrounds(made.background, parameters=gauge)["coefficients"][0]
    )
    assert np.abs(with_it[1:] - without).max() < 0.02 * own.max()


def test_groups_without_overlap_are_solved_apart():
    rng = np.random.default_rng(6)
    level = np.full((5, 8, 12), np.nan)
    level[0, :, :5] = level[1, :, 1:5] = level[2, :, :4] = 0
    level[3, :, 7:] = level[4, :, 6:] = 0
    level += rng.normal(0, 1, level.shape) + np.arange(5)[:, None, None] * 10
    with pytest.warns(DroppedInputWarning, match="2 groups"):
        both = match_backgrounds(background_of(level), parameters=PLAIN)
    assert both["component"].values.tolist() == [0, 0, 0, 1, 1]
    assert set(np.unique(both["sky_component"])) == {-1, 0, 1}
    one = match_backgrounds(background_of(level).isel({v.VISIT: slice(0, 3)}), parameters=PLAIN)
    np.testing.assert_allclose(both["coefficients"][:3], one["coefficients"], atol=1e-9)
    with pytest.raises(DegenerateFitError, match="2 groups without overlap: 1, 2, 3; 4, 5"):
        match_backgrounds(background_of(level), parameters=MatchParameters(require_connected=True))


def test_visits_alone_keep_their_levels():
    level = np.full((3, 2, 9), np.nan)
    for visit in range(3):
        level[visit, :, 3 * visit : 3 * visit + 3] = 5.0
    with pytest.warns(DroppedInputWarning, match="3 groups"):
        found = match_backgrounds(background_of(level))
    assert (found["status"] == v.OffsetStatus.ISOLATED).all()
    assert (found["coefficients"] == 0).all()
    assert (found["sky"] == 5.0).all()
    single = match_backgrounds(background_of(level[:1]))
    assert single["status"].values.tolist() == [v.OffsetStatus.SINGLE]
    np.testing.assert_array_equal(single["sky"], level[0])


def test_a_visit_without_data_changes_nothing(made):
    level = np.concatenate([made.background["level"].values, np.full((2, 20, 20), np.nan)])
    sigma = np.concatenate(
        [
            np.broadcast_to(made.truth["noise"].values[:, None, None], (6, 20, 20)),
            np.full((2, 20, 20), np.nan),
        ]
    )
    level[7] = 1.0  # but no variance
    with pytest.warns(DroppedInputWarning, match=r"7 \(NO_DATA\), 8 \(BAD_VARIANCE\)"):
        found = match_backgrounds(background_of(level, sigma))
    plain = match_backgrounds(background_of(level[:6], sigma[:6]))
    np.testing.assert_array_equal(found["coefficients"][:6], plain["coefficients"])
    assert np.isnan(found["coefficients"][6:]).all()
    with pytest.raises(NoUsableDataError, match="visit 7"):
        offset_image(found, 7, (0, 10, 0, 10))


def test_too_small_an_overlap_leaves_a_level():
    rng = np.random.default_rng(7)
    level = rng.normal(0, 1, (3, 10, 10))
    level[2, :, :] = np.nan
    level[2, :1, :4] = 7.0
    with pytest.warns(PoorlyDeterminedWarning, match="visits 3"):
        found = match_backgrounds(background_of(level))
    assert found["terms_used"].values.tolist() == [3, 3, 1]
    assert found["status"].values.tolist() == [0, 0, v.OffsetStatus.REDUCED]
    assert (found["coefficients"][2, 1:] == 0).all()
    with pytest.raises(DegenerateFitError, match="visits 3"):
        match_backgrounds(background_of(level), parameters=MatchParameters(on_degenerate="raise"))


def test_too_small_an_overlap_leaves_a_level_to_conjugate_gradients():
    rng = np.random.default_rng(7)
    level = rng.normal(0, 1, (3, 10, 10))
    level[2, :, :] = np.nan
    level[2, :1, :4] = 7.0
    chosen = MatchParameters(robust=False)
    loose = chosen.model_copy(update={"dense_limit": 1})
    with pytest.warns(PoorlyDeterminedWarning, match="visits 3"):
        dense, other = (
            match_backgrounds(background_of(level), parameters=p) for p in (chosen, loose)
        )
    np.testing.assert_allclose(other["coefficients"], dense["coefficients"], atol=1e-4)
    assert other["terms_used"].values.tolist() == [3, 3, 1]


def chain(rng: np.random.Generator, fields: int = 10) -> tuple[xr.Dataset, NDArray[np.float64]]:
    """Return visits side by side, each sharing a fifth with the next, and their true fields."""
    width = 8 * fields + 2
    x = np.arange(width) * 2.0 / width - 1.0
    y = np.linspace(-1, 1, 10)
    truth = rng.normal(0, 5, (fields, 3))
    field = truth[:, :1, None] + truth[:, 1:2, None] * y[:, None] + truth[:, 2:, None] * x
    level = field + rng.normal(0, 1, field.shape)
    for visit in range(fields):
        level[visit, :, : 8 * visit] = np.nan
        level[visit, :, 8 * visit + 10 :] = np.nan
    return background_of(level), field


def test_slopes_along_a_chain_get_a_prior():
    background, field = chain(np.random.default_rng(8))
    with pytest.warns(PoorlyDeterminedWarning, match="overlaps hardly determine slopes"):
        found = match_backgrounds(background, parameters=PLAIN)
    assert found.attrs["slope_sigma"] == pytest.approx(5.0, rel=0.7)
    free = match_backgrounds(
        background, parameters=PLAIN.model_copy(update={"slope_prior": "none"})
    )
    assert free.attrs["condition"] == found.attrs["condition"] > 1e4
    seen = np.isfinite(background["level"].values)

    def error(match: xr.Dataset) -> float:
        rest = fields_of(match) - field
        return float(np.sqrt(np.mean((rest - rest.mean(axis=0))[seen] ** 2)))

    assert error(found) < error(free)
    fixed = match_backgrounds(background, parameters=PLAIN.model_copy(update={"slope_prior": 5.0}))
    assert fixed.attrs["slope_sigma"] == 5.0


def test_slopes_that_nothing_determines_are_given_up():
    rng = np.random.default_rng(9)
    level = rng.normal(0, 1, (2, 12, 21))
    level[0, :, 11:] = np.nan
    level[1, :, :10] = np.nan
    without = MatchParameters(slope_prior="none")
    with pytest.warns(PoorlyDeterminedWarning):
        found = match_backgrounds(background_of(level), parameters=without)
    assert found["terms_used"].max() < 3
    with pytest.raises(DegenerateFitError):
        match_backgrounds(
            background_of(level), parameters=without.model_copy(update={"on_degenerate": "raise"})
        )


def test_smoothing_is_chosen_where_errors_are_least():
    made = simulate_tract(
        np.random.default_rng(2),
        parameters=TractParameters(visits=8, bins=24, slope=0.0, field=5.0, field_length=6.0),
    )
    spline = MatchParameters(basis="spline", knots=(6, 6), robust=False)
    found = match_backgrounds(made.background, parameters=spline)
    chosen = found.attrs["smoothing"]
    errors = {
        factor: error_of(
            match_backgrounds(
                made.background,
                parameters=spline.model_copy(update={"smoothing": chosen * factor}),
            ),
            made,
        )
        for factor in (1e-3, 1.0, 1e3)
    }
    assert errors[1.0] < 1.1 * min(errors.values())
    assert errors[1.0] < 0.5 * error_of(match_backgrounds(made.background, parameters=PLAIN), made)
    other = match_backgrounds(
        made.background, parameters=spline.model_copy(update={"smoothing": "evidence"})
    )
    assert 0.03 < other.attrs["smoothing"] / chosen < 30


def test_smoothing_is_chosen_alike_by_conjugate_gradients():
    made = simulate_tract(
        np.random.default_rng(2),
        parameters=TractParameters(visits=8, bins=24, slope=0.0, field=5.0, field_length=6.0),
    )
    spline = MatchParameters(basis="spline", knots=(6, 6), robust=False)
    dense = match_backgrounds(made.background, parameters=spline)
    other = match_backgrounds(
        made.background, parameters=spline.model_copy(update={"dense_limit": 1})
    )
    assert 0.1 < other.attrs["smoothing"] / dense.attrs["smoothing"] < 10


def test_offsets_are_images_and_make_visits_agree(made):
    found = match_backgrounds(made.background)
    box = (-20, 300, 40, 130)
    image = offset_image(found, 3, box)
    expected = field_image(match_basis(found), -found["coefficients"].values[2], box, units="nJy")
    xr.testing.assert_identical(image, expected)
    pixels = xr.DataArray(np.ones((320, 90), np.float32), dims=("y", "x"), attrs={"units": "nJy"})
    warp = xr.Dataset({"image": pixels, "mask": pixels * 0}, {"visit": 3}, {"box": list(box)})
    matched = apply_offset(warp, found)
    np.testing.assert_array_equal(matched["image"], 1 + image)
    assert matched["image"].dtype == np.float32
    assert matched["image"].attrs == {"units": "nJy"}
    lazy = apply_offset(warp.chunk({"y": 100}), found)
    assert lazy["image"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), matched)
    with pytest.raises(KeyError, match="no visit 77"):
        offset_image(found, 77, box)
    with pytest.raises(GeometryError, match="electron"):
        apply_offset(warp.assign(image=pixels.assign_attrs(units="electron")), found)


def test_errors_grow_and_flags_say_where_a_visit_has_no_levels():
    level = np.random.default_rng(1).normal(0, 1, (3, 10, 30))
    level[0, :, 12:] = np.nan
    background = background_of(level)
    found = match_backgrounds(background)
    errors = offset_errors(found, 1)
    assert float(errors[5, 29]) > 3 * float(errors[5, 6])
    inside = float(np.sqrt((errors[:, :12] ** 2).mean()))
    assert float(found["offset_error"][0]) == pytest.approx(inside, rel=1e-9)
    far = extrapolated_bins(found, background)
    assert far[0, 5].values.tolist() == [False] * 27 + [True] * 3
    assert not far[1:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"visit": [1, 1, 2, 3, 4, 5]}, "visits are there twice"),
        ({"visits": 0}, "no visit"),
        ({"attrs": {}}, "tract_shape"),
    ],
)
def test_wrong_inputs_are_named(made, change, message):
    background = made.background
    if "visit" in change:
        background = background.assign_coords({v.VISIT: change["visit"]})
    if "visits" in change:
        background = background.isel({v.VISIT: slice(0, 0)})
    if "attrs" in change:
        background = background.drop_attrs(deep=False)
    with pytest.raises(ConfigurationError, match=message):
        match_backgrounds(background)


def test_a_missing_reference_is_named_before_anything_is_done(made):
    with pytest.raises(ConfigurationError, match=r"77 is not among \[1, 2, 3, 4, 5, 6\]"):
        match_backgrounds(
            made.background, parameters=MatchParameters(gauge="reference", reference_visit=77)
        )


@pytest.mark.parametrize(
    "wrong", [{"knots": (3, 8)}, {"smoothing": 0.0}, {"slope_prior": -1.0}, {"huber": 30.0}]
)
def test_wrong_parameters_are_refused(wrong):
    with pytest.raises(ValueError, match="must"):
        MatchParameters(**wrong)


def test_the_halo_of_a_galaxy_stays_where_backgrounds_of_visits_take_it():
    made = simulate_tract(
        np.random.default_rng(3),
        parameters=TractParameters(
            visits=12,
            bins=32,
            curvature=10.0,
            missing=0.1,
            source=40.0,
            source_sigma=0.07,
            source_shape="halo",
            stars=0,
        ),
    )
    found = match_backgrounds(made.background, parameters=MatchParameters(order=2))
    assert float(found["overlap_ratio_after"]) < 1.3
    common = made.truth["field"].mean(v.VISIT)
    rest = found["sky"] - common  # the background that visits have in common
    source = made.truth["source"]
    halo = (source > 0.3) & (source < 4.0) & (found["visit_count"] > 0)
    assert float(rest.where(halo).sum() / source.where(halo).sum()) == pytest.approx(1, abs=0.03)
