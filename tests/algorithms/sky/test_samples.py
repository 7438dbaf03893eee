"""Samples of an exposure and of the sky frame over the same pixels."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import CubicSpline

from skyloom.algorithms.background import measure_background
from skyloom.algorithms.background.geometry import bin_centers, bin_edges
from skyloom.algorithms.errors import ConfigurationError, GeometryError
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.sky.samples import measure_scale
from skyloom.algorithms.sky.scale_parameters import MeasureScaleParameters, SolveScaleParameters
from skyloom.algorithms.sky.scales import solve_scales
from skyloom.algorithms.sky.subtraction import subtract_fit, subtract_sky_frame
from skyloom.algorithms.sky.visit_fit import fit_visit_background
from skyloom.algorithms.statistics import clipped_moments
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes
from tests.algorithms.sky.scenes import Mosaic, frame_of, low_frequency_pattern

SHAPE, BINS = (130, 97), (9, 7)
GRID = MeasureScaleParameters(samples=(3, 2))


def make_frame(rng, shape=SHAPE, bins=BINS, *, origin=(0, 0), rms=0.01):
    """Return a frame of random bins whose variances differ."""
    dims = ("bin_y", "bin_x")
    return xr.Dataset(
        {
            "level": (dims, rng.normal(0.0, rms, bins).astype(np.float32)),
            "variance": (dims, rng.uniform(1e-8, 4e-8, bins).astype(np.float32)),
        },
        attrs={"box": [origin[0], origin[0] + shape[0], origin[1], origin[1] + shape[1]]},
    )


def rendered(frame):
    """Return the frame at every pixel by scipy's natural splines."""
    y_start, y_stop, x_start, x_stop = frame.attrs["box"]
    image = frame["level"].to_numpy().astype(np.float64)
    for axis, (start, stop) in enumerate(((y_start, y_stop), (x_start, x_stop))):
        knots = bin_centers(bin_edges(stop - start, image.shape[axis]), start)
        spline = CubicSpline(knots, image, axis=axis, bc_type="natural")
        pixels = np.arange(start, stop)
        inside = np.clip(pixels, knots[0], knots[-1])
        # beyond the outermost centres it goes straight on, as its second derivative is 0 there
        beyond = np.expand_dims(pixels - inside, 1 - axis)
        image = spline(inside) + beyond * spline(inside, 1)
    return image


def make_exposure(rng, frame, *, scale=1000.0, sigma=3.0, masked=0.1, dtype=np.float32):
    """Return sky with pattern and noise, bright stars under a mask, and a few that are not."""
    template = rendered(frame)
    image = 200.0 + scale * template + rng.normal(0.0, 1.0, template.shape) * sigma
    stars = rng.random(image.shape) < masked
    image += stars * rng.exponential(500.0, image.shape)
    image += (rng.random(image.shape) < 0.02) * 100 * sigma
    mask = np.where(stars, MASK_PLANES["DETECTED"], 0).astype(np.int32)
    return xr.Dataset(
        {
            "image": (("y", "x"), image.astype(dtype), {"units": "electron"}),
            "mask": (("y", "x"), mask, mask_attributes()),
        },
        coords={"detector": "D3", "exposure": 17},
    )


def cells_of(shape, samples):
    """Yield the cells of an image, row by row."""
    edges_y, edges_x = (
        np.linspace(0, size, number + 1).astype(int)
        for size, number in zip(shape, samples, strict=True)
    )
    for top, bottom in itertools.pairwise(edges_y):
        for left, right in itertools.pairwise(edges_x):
            yield slice(top, bottom), slice(left, right)


def test_the_template_is_averaged_over_the_pixels_that_the_image_used():
    rng = np.random.default_rng(1)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    samples = measure_scale(exposure, frame, parameters=GRID)
    template = rendered(frame)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    bins_y = np.searchsorted(bin_edges(SHAPE[0], BINS[0]), np.arange(SHAPE[0]), "right") - 1
    bins_x = np.searchsorted(bin_edges(SHAPE[1], BINS[1]), np.arange(SHAPE[1]), "right") - 1
    assert samples.sizes["sample"] == 6
    for index, cell in enumerate(cells_of(SHAPE, (3, 2))):
        image, good = exposure["image"].values[cell], exposure["mask"].values[cell] == 0
        moments = clipped_moments(image, good)
        used = good & (np.abs(image.astype(float) - moments.center) <= moments.half_width)
        sample = samples.isel(sample=index)
        assert int(sample["count"]) == moments.count
        assert int(sample["count_used"]) == moments.count_used == used.sum()
        assert float(sample["level"]) == pytest.approx(moments.mean, rel=1e-12)
        assert float(sample["template"]) == pytest.approx(template[cell][used].mean(), rel=1e-5)
        assert float(sample["x"]) == pytest.approx(x[cell][used].mean(), rel=1e-12)
        assert float(sample["y"]) == pytest.approx(y[cell][used].mean(), rel=1e-12)
        share = np.zeros(BINS)
        np.add.at(share, np.broadcast_arrays(bins_y[cell[0], None], bins_x[None, cell[1]]), used)
        noise = np.sum((share / used.sum()) ** 2 * frame["variance"].values)
        assert float(sample["template_variance"]) == pytest.approx(noise, rel=1e-6)


def test_the_variance_of_a_level_is_that_of_the_noise_and_not_of_the_pattern():
    rng = np.random.default_rng(2)
    frame = make_frame(rng, (512, 512), (32, 32))
    waves = 0.01 * np.add.outer(np.sin(np.arange(32) / 3), np.cos(np.arange(32) / 4))
    frame["level"].data[:] = waves
    exposure = make_exposure(rng, frame, masked=0.3)
    samples = measure_scale(exposure, frame, parameters=MeasureScaleParameters(samples=(2, 2)))
    # the pattern scatters by 10, more than three times as much as the noise; what is left of it
    # is its slope within a bin
    ratio = samples["level_variance"] * samples["count_used"] / 3.0**2
    np.testing.assert_allclose(ratio, 1.05, atol=0.07)
    correlated = MeasureScaleParameters(samples=(2, 2), noise_correlation=1.7)
    again = measure_scale(exposure, frame, parameters=correlated)
    np.testing.assert_allclose(again["level_variance"], 1.7 * samples["level_variance"], rtol=1e-12)


def test_an_expected_scale_clips_around_the_pattern():
    rng = np.random.default_rng(20)
    frame = make_frame(rng, (256, 256), (16, 16))
    exposure = make_exposure(rng, frame, masked=0.3)
    # the pattern scatters by 10, the noise by 3: only without the pattern these stars stand out
    exposure["image"].data[rng.random((256, 256)) < 0.05] += 24.0
    few = MeasureScaleParameters(samples=(4, 4))
    none, zero, about = (
        measure_scale(exposure, frame, expected_scale=scale, parameters=few)
        for scale in (None, 0.0, 980.0)
    )
    xr.testing.assert_identical(none, zero)
    excess = [
        float((samples["level"] - 1000.0 * samples["template"]).mean()) - 200.0
        for samples in (none, about)
    ]
    assert excess[0] > 0.5
    assert abs(excess[1]) < 0.1
    noise = (about["level_variance"] * about["count_used"]).values
    np.testing.assert_allclose(noise, 9.0, rtol=0.15)


def test_levels_and_templates_of_an_exact_image_are_in_the_ratio_of_the_scale():
    rng = np.random.default_rng(3)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame, dtype=np.float64)
    exposure["image"].data[:] = 1234.5 * rendered(frame) + 1e6 * (exposure["mask"].data != 0)
    samples = measure_scale(exposure, frame)
    np.testing.assert_allclose(samples["level"] / samples["template"], 1234.5, rtol=2e-5)


@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_what_is_under_the_mask_makes_no_difference(mode):
    rng = np.random.default_rng(4)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    parameters = MeasureScaleParameters(mode=mode)
    before = measure_scale(exposure, frame, parameters=parameters)
    under = exposure["mask"] != 0
    louder = exposure.copy(deep=True)
    louder["image"].data[under.values] += 1e6
    assert measure_scale(louder, frame, parameters=parameters).identical(before)
    holes = exposure.assign(image=exposure["image"].where(~under), mask=0 * exposure["mask"])
    assert measure_scale(holes, frame, parameters=parameters).identical(before)


def test_the_compatible_mode_clips_image_and_template_apart_and_runs_along_y_first():
    rng = np.random.default_rng(5)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    parameters = MeasureScaleParameters(samples=(3, 2), mode="compat")
    samples = measure_scale(exposure, frame, parameters=parameters)
    template = rendered(frame).astype(np.float32)
    for index, cell in enumerate(cells_of(SHAPE, (3, 2))):
        place = index % 2 * 3 + index // 2
        good = exposure["mask"].values[cell] == 0
        moments = clipped_moments(exposure["image"].values[cell], good)
        assert float(samples["level"][place]) == pytest.approx(moments.mean, rel=1e-12)
        variance = moments.variance / moments.count_used
        assert float(samples["level_variance"][place]) == pytest.approx(variance, rel=1e-12)
        mean = clipped_moments(template[cell]).mean
        assert float(samples["template"][place]) == pytest.approx(mean, rel=1e-5, abs=1e-9)


def test_a_masked_cell_is_nan_and_counts_nothing():
    rng = np.random.default_rng(6)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    exposure["mask"].data[:65, :48] = MASK_PLANES["SAT"]
    exposure["image"].data[65:, 48:] = np.nan
    samples = measure_scale(exposure, frame, parameters=MeasureScaleParameters(samples=(2, 2)))
    for name in ("level", "level_variance", "template", "template_variance", "x", "y"):
        np.testing.assert_array_equal(np.isnan(samples[name]), [True, False, False, True])
    np.testing.assert_array_equal(samples["count"][[0, 3]], 0)


def test_an_image_with_another_origin_has_the_same_samples():
    frame = make_frame(np.random.default_rng(7))
    exposure = make_exposure(np.random.default_rng(8), frame)
    moved = frame.assign_attrs(box=[500, 500 + SHAPE[0], -40, -40 + SHAPE[1]])
    shifted = exposure.assign_coords(
        y=np.arange(500, 500 + SHAPE[0]), x=np.arange(-40, -40 + SHAPE[1])
    )
    here, there = measure_scale(exposure, frame), measure_scale(shifted, moved)
    for name in ("level", "level_variance", "template_variance", "count"):
        np.testing.assert_array_equal(there[name], here[name])
    np.testing.assert_allclose(there["template"], here["template"], rtol=1e-5)
    np.testing.assert_allclose(there["x"], here["x"] - 40, atol=1e-9)
    np.testing.assert_allclose(there["y"], here["y"] + 500, atol=1e-9)
    part = shifted.isel(y=slice(20, 90), x=slice(10, 80))
    cut = measure_scale(part, moved, parameters=MeasureScaleParameters(samples=(1, 1)))
    used = (part["mask"].values == 0) & np.isfinite(part["image"].values)
    moments = clipped_moments(part["image"].values, used)
    used &= np.abs(part["image"].values - moments.center) <= moments.half_width
    inside = rendered(frame)[20:90, 10:80][used].mean()
    np.testing.assert_allclose(cut["template"], inside, rtol=1e-5)


def test_positions_in_the_focal_plane_follow_the_transform():
    rng = np.random.default_rng(9)
    frame = make_frame(rng)
    transform = detector_transform(SHAPE, pixel_size=0.015, offset=(30.0, -20.0), rotation=90.0)
    samples = measure_scale(make_exposure(rng, frame), frame, transform=transform)
    x, y = to_focal_plane(transform, samples["x"].values, samples["y"].values)
    np.testing.assert_allclose(samples["focal_x"], x, rtol=1e-12)
    np.testing.assert_allclose(samples["focal_y"], y, rtol=1e-12)
    half = 0.0075 * np.array(SHAPE)
    expected = [30 - half[0], 30 + half[0], -20 - half[1], -20 + half[1]]
    np.testing.assert_allclose(samples.attrs["focal_box"], expected, rtol=1e-12)
    assert samples["detector"].item() == "D3"
    assert samples["exposure"].item() == 17
    assert samples["level"].attrs["units"] == "electron"
    assert samples["level_variance"].attrs["units"] == "electron2"


def test_samples_are_as_many_as_the_pattern_needs_and_the_pixels_allow():
    exact, compat = MeasureScaleParameters(), MeasureScaleParameters(mode="compat")
    assert exact.cells((4096, 300)) == (16, 9)
    assert exact.cells((512, 130)) == (16, 4)
    assert exact.cells((3, 64)) == (3, 4)
    assert exact.cells((1, 1)) == (1, 1)
    assert compat.cells((4096, 4096)) == (4, 4)
    assert MeasureScaleParameters(samples=(5, 7)).cells((4096, 6)) == (5, 6)


def test_the_scale_of_the_samples_is_known_nearly_as_well_as_the_pixels_allow():
    mosaic = Mosaic((768, 768), (1, 2), seed=4)
    frames, rng = mosaic.frames(), np.random.default_rng(19)
    exposures = {name: mosaic.exposure(name, 2000.0, rng, stars=100) for name in frames}
    normal = np.zeros((4, 4))
    for name, exposure in exposures.items():
        good = exposure["mask"].values == 0
        y, x = np.nonzero(good)
        plane = to_focal_plane(mosaic.transforms[name], x, y)
        columns = np.stack([np.ones(len(x)), *plane, mosaic.patterns[name][good]])
        normal += (columns / mosaic.sky(name, 2000.0)[good]) @ columns.T
    bound = np.sqrt(np.linalg.inv(normal)[3, 3])
    samples = [
        measure_scale(
            exposures[name], frames[name], transform=mosaic.transforms[name], expected_scale=2000.0
        )
        for name in frames
    ]
    fit = solve_scales(samples)
    assert samples[0].sizes["sample"] == 256
    assert bound < float(fit["scale_sigma"]) < 1.15 * bound
    assert abs(float(fit["scale"]) - 2000.0) < 3.0 * bound


@pytest.mark.parametrize("shape", [(1, 1), (3, 2), (63, 65), (2, 200)])
@pytest.mark.parametrize("mode", ["exact", "compat"])
def test_small_images_have_no_more_samples_than_pixels(shape, mode):
    rng = np.random.default_rng(10)
    frame = make_frame(rng, shape, (1, min(shape[1], 4)))
    exposure = xr.Dataset({"image": (("y", "x"), rng.normal(0, 1, shape).astype("f4"))})
    parameters = MeasureScaleParameters(mode=mode)
    samples = measure_scale(exposure, frame, parameters=parameters)
    assert samples.sizes["sample"] == np.prod(parameters.cells(shape))
    assert int(samples["count"].sum()) == shape[0] * shape[1]
    assert np.isfinite(samples["template"]).all()


def test_lazy_exposures_give_what_each_gives_alone():
    rng = np.random.default_rng(11)
    frame = make_frame(rng)
    exposures = [make_exposure(rng, frame, scale=s).drop_vars("exposure") for s in (500.0, 900.0)]
    both = xr.concat(exposures, dim="exposure")
    lazy = measure_scale(both.chunk({"exposure": 1, "y": 50}), frame)
    assert lazy["level"].chunks is not None
    eager = measure_scale(both, frame)
    xr.testing.assert_identical(lazy.compute(), eager)
    for index, exposure in enumerate(exposures):
        alone = measure_scale(exposure, frame)
        np.testing.assert_array_equal(eager["template"][index], alone["template"])
        np.testing.assert_array_equal(eager["level"][index], alone["level"])


def test_masks_and_images_of_other_types_give_the_same_samples():
    rng = np.random.default_rng(12)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    expected = measure_scale(exposure, frame)
    for dtype in (np.uint8, np.int64, ">i4"):
        other = exposure.assign(mask=exposure["mask"].astype(dtype))
        assert measure_scale(other, frame).identical(expected)
    big = exposure.assign(image=exposure["image"].astype(">f4"))
    assert measure_scale(big, frame).identical(expected)


def test_pixels_on_bins_without_a_known_variance_are_left_out():
    rng = np.random.default_rng(13)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    column = xr.DataArray(np.arange(BINS[1]) < 5, dims="bin_x")
    holes = measure_scale(
        exposure, frame.assign(variance=frame["variance"].where(column)), parameters=GRID
    )
    edge = int(bin_edges(SHAPE[1], BINS[1])[5])
    whole = measure_scale(exposure, frame, parameters=GRID)
    left, right = slice(0, None, 2), slice(1, None, 2)
    for name in ("level", "template", "template_variance", "count_used"):
        np.testing.assert_array_equal(holes[name][left], whole[name][left])
    assert (holes["count"][right] < whole["count"][right]).all()
    assert (holes["x"][right] < edge).all()
    unknown = measure_scale(exposure, frame.drop_vars("variance"))
    np.testing.assert_array_equal(unknown["template_variance"], 0.0)


def test_a_frame_without_any_value_has_no_template():
    rng = np.random.default_rng(14)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    samples = measure_scale(exposure, frame.assign(level=np.nan * frame["level"]))
    assert np.isnan(samples["template"]).all()
    assert np.isfinite(samples["level"]).all()


def test_the_data_given_stay_as_they_were():
    rng = np.random.default_rng(15)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    copies = exposure.copy(deep=True), frame.copy(deep=True)
    measure_scale(exposure, frame)
    xr.testing.assert_identical(exposure, copies[0])
    xr.testing.assert_identical(frame, copies[1])


def test_misuse_is_named():
    rng = np.random.default_rng(16)
    frame = make_frame(rng)
    exposure = make_exposure(rng, frame)
    with pytest.raises(GeometryError, match="sky frame only"):
        measure_scale(exposure, frame.assign_attrs(box=[0, 64, 0, 64]))
    with pytest.raises(GeometryError, match="choose one detector"):
        measure_scale(exposure, frame.expand_dims(detector=["D3"]))
    with pytest.raises(ValueError, match="natural_spline"):
        MeasureScaleParameters(interpolation="cubic")
    with pytest.raises(KeyError, match="HOT"):
        measure_scale(exposure, frame, parameters=MeasureScaleParameters(ignored_planes=("HOT",)))
    with pytest.raises(ConfigurationError, match="at least"):
        measure_scale(exposure, frame, parameters=MeasureScaleParameters(samples=(0, 4)))


@pytest.mark.parametrize(
    ("name", "ours", "theirs"),
    [("detector", "D00", "D01"), ("physical_filter", "r", "z"), ("camera", "one", "two")],
)
def test_a_frame_of_another_detector_filter_or_camera_is_refused(name, ours, theirs):
    pattern = low_frequency_pattern((64, 64), np.random.default_rng(1))
    image = xr.DataArray(1000 * pattern, dims=("y", "x"), attrs={"units": "electron"})
    exposure = xr.Dataset({"image": image}).assign_coords({name: ours})
    frame = frame_of(pattern)
    identity = np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    background = measure_background(exposure, bin_size=(8, 8)).assign_coords({name: ours})
    fit = solve_scales(measure_scale(exposure, frame), parameters=SolveScaleParameters(order=0))
    # said as a coordinate or as an attribute
    for foreign in (frame.assign_coords({name: theirs}), frame.assign_attrs({name: theirs})):
        calls = (
            lambda foreign=foreign: measure_scale(exposure, foreign),
            lambda foreign=foreign: subtract_sky_frame(exposure, foreign, 1.0),
            lambda foreign=foreign: subtract_sky_frame(
                exposure["image"].assign_coords({name: ours}), foreign, 1.0
            ),
            lambda foreign=foreign: subtract_fit(exposure, fit, sky_frame=foreign),
            lambda foreign=foreign: fit_visit_background(
                {"D00": background}, {"D00": identity}, sky_frames={"D00": foreign}
            ),
        )
        for call in calls:
            with pytest.raises(ConfigurationError, match=f"of {name} '{theirs}', .* of '{ours}'"):
                call()
    # what one side does not say is not checked, and what both say alike is right
    for good in (frame, frame.assign_coords({name: ours})):
        assert np.isfinite(measure_scale(exposure, good)["level"]).all()


def test_frames_that_were_swapped_between_detectors_are_refused_by_the_labels_of_the_visit():
    pattern = low_frequency_pattern((64, 64), np.random.default_rng(1))
    image = xr.DataArray(1000 * pattern, dims=("y", "x"), attrs={"units": "electron"})
    background = measure_background(xr.Dataset({"image": image}), bin_size=(8, 8))
    names = ("D00", "D01")
    swapped = {
        name: frame_of(pattern).assign_coords(detector=other)
        for name, other in zip(names, names[::-1], strict=True)
    }
    transforms = dict.fromkeys(names, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    with pytest.raises(ConfigurationError, match="detector 'D01', the background of 'D00'"):
        fit_visit_background(dict.fromkeys(names, background), transforms, sky_frames=swapped)


@pytest.mark.parametrize("expected", [np.nan, np.inf])
def test_an_expected_scale_that_is_not_finite_is_refused(expected):
    frame = frame_of(low_frequency_pattern((64, 64), np.random.default_rng(1)))
    exposure = xr.Dataset({"image": (("y", "x"), np.ones((64, 64), np.float32))})
    with pytest.raises(ConfigurationError, match=f"expected_scale must be finite, got {expected}"):
        measure_scale(exposure, frame, expected_scale=expected)
