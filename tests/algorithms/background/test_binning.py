"""The kernel of bins against the clipped statistics of one set, whatever the pixels."""

from __future__ import annotations

import numpy as np
import pytest

from skyloom.algorithms.background import bin_edges, bin_image
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.statistics import clipped_moments


def noise(rng, shape):
    return rng.normal(1000.0, 30.0, shape)


def with_sources(rng, shape):
    image = noise(rng, shape)
    return image + np.where(rng.random(shape) < 0.1, rng.exponential(400.0, shape), 0.0)


def steep(rng, shape):
    return noise(rng, shape) + 40.0 * np.arange(shape[1])


def whole_numbers(rng, shape):
    return np.rint(rng.normal(3.0, 1.5, shape))


def two_levels(rng, shape):
    return np.where(rng.random(shape) < 0.9, 7.0, 9.0)


def bright_galaxy(rng, shape):
    y, x = np.indices(shape)
    distance = np.hypot(y - shape[0] / 2, x - shape[1] / 2)
    return noise(rng, shape) + 1e6 * np.exp(-distance / 15.0)


def around_zero(rng, shape):
    return rng.normal(0.0, 1e-3, shape)


def wild(rng, shape):
    return rng.standard_cauchy(shape) * 1e3


def equal(rng, shape):
    return np.full(shape, 4.25)


KINDS = [
    noise,
    with_sources,
    steep,
    whole_numbers,
    two_levels,
    bright_galaxy,
    around_zero,
    wild,
    equal,
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [7, 33, 100])
@pytest.mark.parametrize("masked", [0.0, 0.1, 0.97])
def test_every_bin_is_the_clipped_statistic_of_its_pixels(kind, size, masked):
    rng = np.random.default_rng(size)
    image = kind(rng, (200, 230)).astype(np.float32)
    mask = np.where(rng.random(image.shape) < masked, 4, 0).astype(np.int32)
    image[rng.random(image.shape) < 0.005] = np.nan
    rows, columns = bin_edges(200, 200 // size), bin_edges(230, 230 // size)
    found = bin_image(image, mask, 4, rows, columns)
    # the first bins and the last, in the middle of a large grid nothing new happens
    chosen = [(i, j) for i in range(len(rows) - 1) for j in range(len(columns) - 1)]
    for i, j in chosen[:8] + chosen[-8:]:
        part = np.s_[rows[i] : rows[i + 1], columns[j] : columns[j + 1]]
        expected = clipped_moments(image[part], (mask[part] == 0))
        assert found.count[i, j] == expected.count
        assert found.count_used[i, j] == expected.count_used
        np.testing.assert_allclose(found.level[i, j], expected.mean, rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(found.pixel_variance[i, j], expected.variance, rtol=1e-9)


@pytest.mark.parametrize("clip", [1.0, 2.5, 20.0])
@pytest.mark.parametrize("iterations", [1, 2, 7])
def test_any_clip_and_number_of_passes_hold(clip, iterations):
    image = with_sources(np.random.default_rng(1), (64, 96)).astype(np.float32)
    found = bin_image(image, None, 0, bin_edges(64, 1), bin_edges(96, 2), clip, iterations)
    for j in range(2):
        expected = clipped_moments(image[:, 48 * j : 48 * j + 48], clip=clip, iterations=iterations)
        assert found.count_used[0, j] == expected.count_used
        assert found.level[0, j] == pytest.approx(expected.mean, rel=1e-12)


def test_what_surrounds_a_bin_does_not_change_a_bit_of_it():
    rng = np.random.default_rng(2)
    image = with_sources(rng, (128, 512)).astype(np.float32)
    image[:, :128] *= 50.0  # misleads about the next
    edges = bin_edges(128, 1)
    alone = bin_image(image[:, 128:256], None, 0, edges, edges)
    among = bin_image(image, None, 0, edges, bin_edges(512, 4))
    assert among.level[0, 1] == alone.level[0, 0]
    assert among.variance[0, 1] == alone.variance[0, 0]


@pytest.mark.parametrize("dtype", ["f8", "i2", "u2", "i4", ">f4", "f2"])
def test_any_dtype_and_layout_is_accepted_and_left_alone(dtype):
    image = np.rint(noise(np.random.default_rng(3), (60, 80))).astype(dtype)
    before = image.copy()
    edges = bin_edges(60, 2), bin_edges(80, 2)
    expected = bin_image(image.astype("f8"), None, 0, *edges)
    for given in (image, np.asfortranarray(image), np.repeat(image, 2, axis=1)[:, ::2]):
        found = bin_image(given, None, 0, *edges)
        np.testing.assert_allclose(found.level, expected.level, rtol=1e-12)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize("dtype", ["u1", "i8", "u4", ">i4", "?"])
def test_masks_of_any_integer_dtype_mask_the_same_pixels(dtype):
    rng = np.random.default_rng(4)
    image = noise(rng, (60, 80)).astype(np.float32)
    mask = rng.random(image.shape) < 0.3
    edges = bin_edges(60, 2), bin_edges(80, 2)
    expected = bin_image(np.where(mask, np.nan, image), None, 0, *edges)
    found = bin_image(image, mask.astype(dtype), 1, *edges)
    np.testing.assert_array_equal(found.level, expected.level)


def test_bins_may_leave_pixels_out():
    image = np.arange(20, dtype=np.float32).reshape(1, 20)
    found = bin_image(image, None, 0, [0, 1], [2, 5, 10], statistic="mean")
    assert found.level.tolist() == [[3.0, 7.0]]


def test_one_bin_of_a_large_image():
    image = with_sources(np.random.default_rng(5), (1100, 1300)).astype(np.float32)
    found = bin_image(image, None, 0, bin_edges(1100, 1), bin_edges(1300, 1))
    expected = clipped_moments(image)
    assert found.count_used[0, 0] == expected.count_used
    assert found.level[0, 0] == pytest.approx(expected.mean, rel=1e-12)


def test_repeats_agree_bit_for_bit():
    image = with_sources(np.random.default_rng(6), (256, 256)).astype(np.float32)
    edges = bin_edges(256, 5)
    one, other = (bin_image(image, None, 0, edges, edges) for _ in range(2))
    for first, second in zip(one, other, strict=True):
        np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("variance_from", "expected"), [("input", 0.1), ("input_correlated", 10.0)]
)
def test_input_variances_of_independent_or_correlated_pixels(variance_from, expected):
    edges = np.array([0, 10])
    image, pixels = np.ones((10, 10), np.float32), np.full((10, 10), 10.0)
    found = bin_image(image, None, 0, edges, edges, variance=pixels, variance_from=variance_from)
    assert found.variance[0, 0] == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"edges_y": [0, 4, 4]}, GeometryError, "without empty bins"),
        ({"edges_y": [0, 9]}, GeometryError, "at most 8"),
        ({"edges_x": [0]}, GeometryError, "edges must ascend"),
        ({"mask": np.zeros((2, 2), int)}, GeometryError, "mask has shape"),
        ({"mask": np.zeros((8, 8))}, ConfigurationError, "integer bit planes"),
        ({"clip": 0.0}, ConfigurationError, "clip must be > 0"),
        ({"iterations": 0}, ConfigurationError, "iterations must be >= 1"),
        ({"statistic": "mode"}, ConfigurationError, "meanclip, mean, median"),
        ({"variance_from": "input"}, ConfigurationError, "needs the variance"),
        ({"variance_from": "else"}, ConfigurationError, "variance_from must be"),
    ],
)
def test_misuse_is_named(changed, error, text):
    given = {
        "image": np.ones((8, 8), np.float32),
        "mask": None,
        "bits": 1,
        "edges_y": [0, 8],
        "edges_x": [0, 8],
    }
    with pytest.raises(error, match=text):
        bin_image(**(given | changed))
