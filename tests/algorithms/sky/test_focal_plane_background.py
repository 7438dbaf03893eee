"""One sky across all detectors: exact for planes, robust, and silent about what was not seen."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import ndimage

from skyloom.algorithms import vocabulary as v
from skyloom.algorithms.background import measure_background, render_background
from skyloom.algorithms.errors import (
    ConfigurationError,
    DroppedInputWarning,
    GeometryError,
    NoUsableDataError,
)
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.sky import (
    FocalPlaneParameters,
    focal_plane_background,
    focal_plane_grid,
    focal_plane_level,
    focal_plane_on_detector,
    focal_plane_sums,
    focal_plane_sums_of_pixels,
    merge_focal_plane_sums,
)
from tests.algorithms.sky.focal_planes import PIXEL, background_of, backgrounds_of, mosaic

CELLS = FocalPlaneParameters(cell_size=(3.0, 3.0))


def plane(x, y):
    return 1000.0 + 3.0 * x - 5.0 * y


def measured(model):
    return np.isfinite(model["variance"].values)


@pytest.mark.parametrize("alignment", ["centered", "edge"])
@pytest.mark.parametrize("interpolation", ["cubic", "linear"])
@pytest.mark.parametrize("rotations", [(0.0,), (90.0, 180.0, 270.0, 0.0), (30.0, -7.0)])
def test_a_plane_is_reproduced_however_detectors_are_turned(alignment, interpolation, rotations):
    transforms, shapes = mosaic(3, 2, (500, 500), rotations=rotations, gap=220)
    backgrounds = backgrounds_of(plane, transforms, shapes)
    parameters = FocalPlaneParameters(
        cell_size=(3.1, 4.3), alignment=alignment, interpolation=interpolation
    )
    model = focal_plane_background(backgrounds, transforms, parameters=parameters)
    expected = plane(model["focal_x"].values[None, :], model["focal_y"].values[:, None])
    seen = measured(model)
    extent = expected.max() - expected.min()
    np.testing.assert_allclose(model["level"].values[seen], expected[seen], atol=1e-4 * extent)
    for name, transform in transforms.items():
        found = focal_plane_on_detector(model, transform, backgrounds[name])
        error = np.abs(found["level"] - backgrounds[name]["level"]).max()
        assert error <= 0.02 * PIXEL * np.hypot(3.0, 5.0)


@pytest.mark.parametrize("width", [4072, 4000, 4096, 63, 65])
def test_positions_are_exact_for_any_width(width):
    transform = detector_transform((256, width), pixel_size=PIXEL, rotation=90.0)
    background = background_of(plane, transform, (256, width))
    cell = 2.0 if width > 96 else 0.33
    parameters = FocalPlaneParameters(cell_size=(cell, cell))
    model = focal_plane_background({1: background}, {1: transform}, parameters=parameters)
    found = focal_plane_on_detector(model, transform, background)
    style = "linear" if width < 96 else "natural_spline"
    image = render_background(found, interpolation=style)
    y, x = np.mgrid[:256, :width]
    expected = plane(*to_focal_plane(transform, x, y))
    assert np.abs(image - expected).max() <= 0.02 * PIXEL * np.hypot(3.0, 5.0) + 1e-4


def test_every_pixel_is_in_one_cell():
    transforms, shapes = mosaic(2, 2, (131, 97), rotations=(20.0, 45.0, 90.0))
    rng = np.random.default_rng(1)
    grid = focal_plane_grid(transforms, shapes, cell_size=(0.33, 0.41))
    valid = 0
    for name, transform in transforms.items():
        image = rng.normal(100.0, 5.0, shapes[name]).astype(np.float32)
        image[3:8, 4] = np.nan
        mask = np.where(rng.random(image.shape) < 0.1, v.plane_bits(["SAT"]), 0).astype(np.int32)
        exposure = xr.Dataset(
            {"image": (("y", "x"), image), "mask": (("y", "x"), mask, v.mask_attributes())}
        )
        sums = focal_plane_sums_of_pixels(exposure, transform, grid, parameters=CELLS)
        count = int((np.isfinite(image) & (mask == 0)).sum())
        assert int(sums["count"].sum()) == count
        assert float(sums["area"].sum()) == pytest.approx(count * PIXEL**2)
        valid += count
        background = measure_background(exposure, bin_size=(16, 16))
        bins = focal_plane_sums(background, transform, grid)
        assert int(bins["count"].sum()) == count
    assert valid > 0


def test_pixels_and_bins_give_the_same_sky():
    transforms, shapes = mosaic(1, 2, (200, 160), rotations=(0.0, 180.0))
    grid = focal_plane_grid(transforms, shapes, cell_size=(0.8, 0.8))
    rng = np.random.default_rng(2)
    pixels, bins = [], []
    for name, transform in transforms.items():
        y, x = np.mgrid[: shapes[name][0], : shapes[name][1]]
        image = 0.1 * plane(*to_focal_plane(transform, x, y)) + rng.normal(0.0, 1.0, shapes[name])
        exposure = xr.Dataset({"image": (("y", "x"), image.astype(np.float32))})
        pixels.append(focal_plane_sums_of_pixels(exposure, transform, grid, parameters=CELLS))
        background = measure_background(exposure, bin_size=(8, 8))
        bins.append(focal_plane_sums(background, transform, grid))
    of_pixels, of_bins = (
        focal_plane_level(merge_focal_plane_sums(parts), parameters=CELLS)
        for parts in (pixels, bins)
    )
    difference = (of_pixels["level"] - of_bins["level"]) / np.sqrt(of_pixels["variance"])
    assert np.abs(difference).max() < 1.0
    ratio = of_bins["variance"] / of_pixels["variance"]
    np.testing.assert_allclose(ratio, 1.0, atol=0.15)


def test_a_constant_sky_is_constant_everywhere():
    transforms, shapes = mosaic(3, 3)
    del transforms[4], transforms[8]
    backgrounds = backgrounds_of(lambda x, y: 0 * x + 0 * y + 777.0, transforms, shapes)
    model = focal_plane_background(
        backgrounds, transforms, parameters=FocalPlaneParameters(cell_size=(2.0, 2.0))
    )
    np.testing.assert_allclose(model["level"], 777.0, rtol=1e-12)
    assert float(model["scale"]) == pytest.approx(777.0, rel=1e-12)
    flags = model["flags"].values
    assert ((flags & v.BinFlag.EMPTY) != 0).any()
    filled = (flags & (v.BinFlag.FILLED | v.BinFlag.EXTRAPOLATED)) != 0
    np.testing.assert_array_equal(filled, ~measured(model))
    for name, transform in transforms.items():
        found = focal_plane_on_detector(model, transform, backgrounds[name])
        np.testing.assert_allclose(found["level"], 777.0, rtol=1e-12)


def test_order_and_grouping_of_detectors_make_no_difference():
    transforms, shapes = mosaic(3, 3)
    rng = np.random.default_rng(3)
    backgrounds = backgrounds_of(plane, transforms, shapes, noise=1.0, rng=rng)
    model = focal_plane_background(backgrounds, transforms, parameters=CELLS)
    shuffled = focal_plane_background(
        dict(reversed(backgrounds.items())), transforms, parameters=CELLS
    )
    xr.testing.assert_identical(model, shuffled)
    grid = focal_plane_grid(transforms, shapes, cell_size=(3.0, 3.0))
    parts = [focal_plane_sums(backgrounds[name], transforms[name], grid) for name in transforms]
    copies = [part.copy(deep=True) for part in parts]
    whole = merge_focal_plane_sums(parts)
    nested = merge_focal_plane_sums(
        [merge_focal_plane_sums(parts[5:][::-1]), merge_focal_plane_sums(parts[:5])]
    )
    for name in whole:
        np.testing.assert_allclose(nested[name], whole[name], rtol=1e-12, atol=1e-6)
    for part, copy in zip(parts, copies, strict=True):
        xr.testing.assert_identical(part, copy)
    plain = focal_plane_background(
        backgrounds, transforms, parameters=FocalPlaneParameters(cell_size=(3.0, 3.0), iterations=0)
    )
    level = focal_plane_level(whole, parameters=CELLS)["level"]
    np.testing.assert_allclose(plain["level"], level, rtol=1e-12)


def test_scaling_and_adding_act_as_on_the_images():
    transforms, shapes = mosaic(2, 2)
    backgrounds = backgrounds_of(plane, transforms, shapes, noise=2.0, rng=np.random.default_rng(4))
    base = focal_plane_background(backgrounds, transforms, parameters=CELLS)
    changed = {
        name: item.assign(level=4.0 * item["level"] + 16.0, variance=16.0 * item["variance"])
        for name, item in backgrounds.items()
    }
    other = focal_plane_background(changed, transforms, parameters=CELLS)
    np.testing.assert_allclose(other["level"], 4.0 * base["level"] + 16.0, rtol=1e-10)
    assert float(other["scale"]) == pytest.approx(4.0 * float(base["scale"]) + 16.0, rel=1e-10)
    assert int(other["clipped_count"]) == int(base["clipped_count"])


def test_a_glow_in_one_detector_is_rejected_against_its_neighbours():
    transforms, shapes = mosaic(2, 2)
    rng = np.random.default_rng(5)
    backgrounds = backgrounds_of(plane, transforms, shapes, noise=1.0, rng=rng)
    clean = focal_plane_background(backgrounds, transforms, parameters=CELLS)
    level = backgrounds[0]["level"].copy()
    level[:3, :] += 40.0
    backgrounds[0] = backgrounds[0].assign(level=level)
    model = focal_plane_background(backgrounds, transforms, parameters=CELLS)
    once = FocalPlaneParameters(cell_size=(3.0, 3.0), iterations=0)
    plain = focal_plane_background(backgrounds, transforms, parameters=once)
    # what is left of the cells that the glow covers in part
    assert np.abs(model["level"] - clean["level"]).max() < 1.0
    assert np.abs(plain["level"] - clean["level"]).max() > 3.0
    assert int(model["clipped_count"]) >= 3 * 16


def test_the_scale_is_that_of_measured_cells():
    transforms, shapes = mosaic(10, 10, (256, 256), gap=0)
    inside = {
        name: transform
        for name, transform in transforms.items()
        if np.hypot(*to_focal_plane(transform, 127.5, 127.5)) < 12.0
    }

    def falloff(x, y):
        return 1000.0 * (1.0 - 0.08 * (x**2 + y**2) / 12.0**2)

    backgrounds = backgrounds_of(falloff, inside, shapes)
    parameters = FocalPlaneParameters(cell_size=(2.0, 2.0), alignment="edge", iterations=0)
    model = focal_plane_background(backgrounds, inside, parameters=parameters)
    seen = measured(model)
    assert 0.3 < 1.0 - seen.mean() < 0.6
    expected = np.median(
        falloff(model["focal_x"].values[None, :], model["focal_y"].values[:, None])[seen]
    )
    assert float(model["scale"]) == pytest.approx(expected, rel=1e-3)
    assert np.median(model["level"]) < 0.985 * expected  # what all cells together would say
    # nothing runs away where nothing was seen
    assert model["level"].min() > 0.85 * 1000.0
    assert model["level"].max() < 1001.0


def test_a_sparsely_covered_cell_is_filled_not_believed():
    transforms, shapes = mosaic(1, 2)
    backgrounds = backgrounds_of(plane, transforms, shapes)
    wrong = backgrounds[1].copy(deep=True)
    wrong["level"][:, 4:] = np.nan
    wrong["level"][2, 15] = 5e5
    backgrounds[1] = wrong
    parameters = FocalPlaneParameters(cell_size=(2.0, 2.0), iterations=0)
    model = focal_plane_background(backgrounds, transforms, parameters=parameters)
    low = (model["flags"].values & v.BinFlag.LOW_COUNT) != 0
    assert low.any()
    expected = plane(model["focal_x"].values[None, :], model["focal_y"].values[:, None])
    np.testing.assert_allclose(model["level"].values[low], expected[low], atol=20.0)
    assert np.isnan(model["variance"].values[low]).all()


def test_errors_of_cells_hold():
    transforms, shapes = mosaic(2, 2)
    pulls = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        backgrounds = backgrounds_of(plane, transforms, shapes, noise=1.0, rng=rng)
        model = focal_plane_background(
            backgrounds, transforms, parameters=FocalPlaneParameters(cell_size=(2.7, 2.7))
        )
        expected = plane(model["focal_x"].values[None, :], model["focal_y"].values[:, None])
        pulls.append((model["level"].values - expected) / np.sqrt(model["variance"].values))
    assert np.std(pulls) == pytest.approx(1.0, abs=0.08)
    assert np.mean(pulls) == pytest.approx(0.0, abs=0.1)


@pytest.mark.parametrize("steps", ["type", "detector"])
def test_steps_between_detectors_are_found(steps):
    transforms, shapes = mosaic(4, 4, gap=4)
    rng = np.random.default_rng(6)
    backgrounds = backgrounds_of(plane, transforms, shapes, noise=1.0, rng=rng)
    types = {name: "b" if (name // 4 + name) % 2 else "a" for name in transforms}
    backgrounds = {
        name: item.assign(level=item["level"] + 20.0 * (types[name] == "b"))
        for name, item in backgrounds.items()
    }
    parameters = FocalPlaneParameters(cell_size=(4.1, 4.1), steps=steps)
    model = focal_plane_background(
        backgrounds, transforms, parameters=parameters, detector_types=types
    )
    found = dict(zip(model["detector"].values.tolist(), model["step"].values, strict=True))
    b, a = (np.mean([found[name] for name in types if types[name] == kind]) for kind in "ba")
    assert b - a == pytest.approx(20.0, abs=0.2)
    assert sum(found.values()) == pytest.approx(0.0, abs=1e-6)
    for name in transforms:
        on = focal_plane_on_detector(model, transforms[name], backgrounds[name], detector=name)
        assert abs(float((on["level"] - backgrounds[name]["level"]).mean())) < 1.0
    with pytest.raises(KeyError, match="99"):
        focal_plane_on_detector(model, transforms[0], backgrounds[0], detector=99)


def test_smoothing_keeps_a_constant_and_lowers_noise():
    transforms, shapes = mosaic(3, 3)
    rng = np.random.default_rng(7)
    backgrounds = backgrounds_of(
        lambda x, y: 0 * x + 0 * y + 500.0, transforms, shapes, noise=5.0, rng=rng
    )
    rough, smooth = (
        focal_plane_background(
            backgrounds,
            transforms,
            parameters=FocalPlaneParameters(cell_size=(1.5, 1.5), smoothing=sigma),
        )
        for sigma in (0.0, 1.0)
    )
    assert (smooth["level"] - 500.0).std() < 0.5 * (rough["level"] - 500.0).std()
    assert ((smooth["flags"].values & v.BinFlag.SMOOTHED) != 0)[measured(smooth)].all()
    reference = ndimage.gaussian_filter(rough["level"].values, 1.0, mode="reflect")
    assert np.corrcoef(reference.ravel(), smooth["level"].values.ravel())[0, 1] > 0.9


def test_one_cell_is_a_constant():
    transforms, shapes = mosaic(1, 2)
    backgrounds = backgrounds_of(plane, transforms, shapes)
    parameters = FocalPlaneParameters(cell_size=(50.0, 50.0))
    model = focal_plane_background(
        backgrounds, transforms, parameters=parameters.model_copy(update={"minimum_fraction": 0.0})
    )
    assert model["level"].shape == (1, 1)
    found = focal_plane_on_detector(model, transforms[0], backgrounds[0])
    np.testing.assert_allclose(found["level"], 1000.0, atol=1e-9)


def test_detectors_without_data_or_partner_change_nothing():
    transforms, shapes = mosaic(2, 2)
    backgrounds = backgrounds_of(plane, transforms, shapes)
    empty = backgrounds[3].assign(level=np.nan * backgrounds[3]["level"])
    grid = focal_plane_grid(transforms, shapes, cell_size=(3.0, 3.0))
    with_empty = focal_plane_background(
        backgrounds | {3: empty}, transforms, parameters=CELLS, grid=grid
    )
    del backgrounds[3]
    with pytest.warns(DroppedInputWarning, match="3"):
        without = focal_plane_background(backgrounds, transforms, parameters=CELLS, grid=grid)
    xr.testing.assert_identical(without, with_empty)


def test_inputs_stay_as_they_were():
    transforms, shapes = mosaic(1, 2)
    backgrounds = backgrounds_of(plane, transforms, shapes, noise=1.0, rng=np.random.default_rng(8))
    copies = {name: item.copy(deep=True) for name, item in backgrounds.items()}
    placed = {name: item.copy() for name, item in transforms.items()}
    model = focal_plane_background(backgrounds, transforms, parameters=CELLS)
    copy = model.copy(deep=True)
    focal_plane_on_detector(model, transforms[0], backgrounds[0])
    xr.testing.assert_identical(model, copy)
    for name in backgrounds:
        xr.testing.assert_identical(backgrounds[name], copies[name])
        np.testing.assert_array_equal(transforms[name], placed[name])


def test_misuse_is_named():
    transforms, shapes = mosaic(1, 2)
    backgrounds = backgrounds_of(plane, transforms, shapes)
    with pytest.raises(ConfigurationError, match="backgrounds is empty"):
        focal_plane_background({}, transforms, parameters=CELLS)
    with pytest.raises(ConfigurationError, match="two pixels"):
        focal_plane_grid(transforms, shapes, cell_size=(0.015, 1.0))
    with pytest.raises(ConfigurationError, match="smaller than bins"):
        focal_plane_background(
            backgrounds, transforms, parameters=FocalPlaneParameters(cell_size=(1.0, 0.3))
        )
    with pytest.raises(ConfigurationError, match="transforms is empty"):
        focal_plane_grid({}, {}, cell_size=(1.0, 1.0))
    with pytest.raises(GeometryError, match=r"\[1\]"):
        focal_plane_grid(transforms, {0: (5, 5)}, cell_size=(1.0, 1.0))
    with pytest.raises(ConfigurationError, match="alignment"):
        focal_plane_grid(transforms, shapes, cell_size=(1.0, 1.0), alignment="left")
    with pytest.raises(ValueError, match="cell_size"):
        FocalPlaneParameters()
    with pytest.raises(ConfigurationError, match="detector_types"):
        focal_plane_background(
            backgrounds,
            transforms,
            parameters=FocalPlaneParameters(cell_size=(3.0, 3.0), steps="type"),
        )
    mixed = backgrounds | {1: background_of(plane, transforms[1], shapes[1], units="adu")}
    with pytest.raises(GeometryError, match="unit"):
        focal_plane_background(mixed, transforms, parameters=CELLS)
    small, large = (
        focal_plane_sums(
            backgrounds[0],
            transforms[0],
            focal_plane_grid(transforms, shapes, cell_size=(size, size)),
        )
        for size in (2.0, 3.0)
    )
    with pytest.raises(GeometryError, match="position 1"):
        merge_focal_plane_sums([small, large])
    with pytest.raises(ConfigurationError, match="parts is empty"):
        merge_focal_plane_sums([])
    only = focal_plane_grid({0: transforms[0]}, shapes, cell_size=(1.0, 1.0))
    with pytest.raises(GeometryError, match="outside"):
        focal_plane_sums(backgrounds[1], transforms[1], only)
    empty = {name: item.assign(level=np.nan * item["level"]) for name, item in backgrounds.items()}
    with pytest.raises(NoUsableDataError, match="the fullest has 0"):
        focal_plane_background(empty, transforms, parameters=CELLS)
    with pytest.raises(GeometryError, match=r"\(2, 3\)"):
        focal_plane_background(backgrounds, {0: np.eye(3), 1: transforms[1]}, parameters=CELLS)
