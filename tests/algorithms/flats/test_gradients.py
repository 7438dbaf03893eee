"""Illumination over the focal plane: fitted, applied, refitted; samples, laziness, failures."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy.interpolate import CubicSpline

from skyloom.algorithms.background import interpolate
from skyloom.algorithms.errors import GeometryError, NoUsableDataError
from skyloom.algorithms.flats import (
    FlatGradientParameters,
    FlatSampleParameters,
    apply_flat_gradients,
    fit_flat_gradients,
    sample_flat,
)
from skyloom.algorithms.focal_plane import detector_transform, to_focal_plane
from skyloom.algorithms.vocabulary import MASK_PLANES, mask_attributes

NODES = np.array([0, 1, 2, 3, 4, 4.5, 5.2])
DOME = np.array([1, 1, 1, 0.9, 0.5, 0.3, 0])
SKY = np.array([1, 1, 1, 1, 0.8, 0.5, 0])
SIDE, PIXEL = 370, 0.01
SAMPLES = FlatSampleParameters(bin_size=4, edge=5)
PLACES = ((-1, -1), (1, -1), (-1, 1), (1, 1))


def parameters(**options) -> FlatGradientParameters:
    options = {"last_node_zero": True, "fit_shift": False, "fit_plane": False} | options
    return FlatGradientParameters(nodes=tuple(NODES), centre_radius=1.0, **options)


def flats(
    values=DOME, normalization=1.1, ratio=1.0, shift=(0.0, 0.0), plane=(0.0, 0.0), noise=0.0
) -> list[tuple[xr.Dataset, np.ndarray, str]]:
    """Return four small detectors, their transforms and types, with a defect in a corner."""
    rng = np.random.default_rng(3)
    made = []
    for index, (u, w) in enumerate(PLACES):
        half = 0.5 * SIDE * PIXEL
        transform = detector_transform((SIDE, SIDE), pixel_size=PIXEL, offset=(u * half, w * half))
        y, x = np.indices((SIDE, SIDE), dtype=np.float64)
        fx, fy = to_focal_plane(transform, x, y)
        radius = np.hypot(fx - shift[0], fy - shift[1])
        image = interpolate(NODES, values, radius, "akima", extrapolate="nearest")
        image = image * normalization / (1.0 + plane[0] * fx + plane[1] * fy)
        image *= ratio if index % 2 else 1.0
        image += noise * rng.normal(size=image.shape)
        mask = np.zeros((SIDE, SIDE), np.int32)
        mask[:8, :8] = MASK_PLANES["BAD"]
        image[:8, :8] = np.nan
        flat = xr.Dataset(
            {
                "image": (("y", "x"), image, {"units": ""}),
                "variance": (("y", "x"), np.full(image.shape, 1e-6), {"units": ""}),
                "mask": (("y", "x"), mask, mask_attributes()),
            }
        )
        made.append((flat, transform, "ITL" if index % 2 else "E2V"))
    return made


def samples_of(made, types=True) -> xr.Dataset:
    return xr.concat(
        [
            sample_flat(
                flat,
                transform,
                detector=f"S{index}",
                detector_type=kind if types else "",
                parameters=SAMPLES,
            )
            for index, (flat, transform, kind) in enumerate(made)
        ],
        "sample",
    )


def known(values, **scalars) -> xr.Dataset:
    """Return gradients as a fit would."""
    scalars = {
        name: scalars.get(name, 1.0 if name == "normalization" else 0.0)
        for name in ("normalization", "shift_x", "shift_y", "gradient_x", "gradient_y")
    }
    return xr.Dataset(
        {"value": ("node", values), **scalars},
        coords={"radius": ("node", NODES)},
        attrs={"interpolation": "akima"},
    )


def test_a_radial_profile_is_found():
    samples = samples_of(flats(), types=False)
    fit = fit_flat_gradients(samples, parameters=parameters())
    assert float(fit["normalization"]) == pytest.approx(1.1, rel=1e-7)
    assert fit["value"].values == pytest.approx(DOME, abs=1e-3)
    assert float(fit["value_sigma"][-1]) == 0.0
    assert bool(fit["converged"])
    free = fit_flat_gradients(samples, parameters=parameters(last_node_zero=False))
    assert free["value"].values[:-1] == pytest.approx(DOME[:-1], abs=1e-3)
    assert float(free["value"][-1]) == pytest.approx(0.0, abs=0.20)


def test_the_centre_of_a_profile_is_found():
    samples = samples_of(flats(shift=(0.01, -0.01)), types=False)
    fit = fit_flat_gradients(samples, parameters=parameters(fit_shift=True))
    assert float(fit["shift_x"]) == pytest.approx(0.01, abs=6e-3)
    assert float(fit["shift_y"]) == pytest.approx(-0.01, abs=6e-3)
    assert fit["value"].values == pytest.approx(DOME, abs=1e-3)


def test_a_plane_is_found():
    samples = samples_of(flats(plane=(0.01, -0.01)), types=False)
    fit = fit_flat_gradients(samples, parameters=parameters(fit_plane=True))
    assert float(fit["gradient_x"]) == pytest.approx(0.01, abs=1e-4)
    assert float(fit["gradient_y"]) == pytest.approx(-0.01, abs=1e-4)
    assert fit["value"].values == pytest.approx(DOME, abs=2e-3)
    assert float(fit["normalization"]) == pytest.approx(1.1, rel=1e-2)


@pytest.fixture(scope="module")
def dome() -> list[tuple[xr.Dataset, np.ndarray, str]]:
    return flats(normalization=1.15, ratio=0.9, shift=(0.01, -0.01), plane=(0.01, -0.01))


def test_a_dome_flat_is_given_the_profile_of_the_sky(dome):
    own = known(
        DOME, normalization=1.15, shift_x=0.01, shift_y=-0.01, gradient_x=0.01, gradient_y=-0.01
    )
    corrected = [
        (apply_flat_gradients(flat, transform, own, known(SKY)), transform, kind)
        for flat, transform, kind in dome
    ]
    fit = fit_flat_gradients(
        samples_of(corrected), parameters=parameters(fit_shift=True, fit_plane=True)
    )
    assert float(fit["normalization"]) == pytest.approx(1.0, abs=1e-3)
    assert fit["value"].values == pytest.approx(SKY, abs=1e-2)
    assert fit["detector_type"].values.tolist() == ["E2V", "ITL"]
    assert fit["type_ratio"].values == pytest.approx([1.0, 0.9], abs=2e-4)
    assert float(fit["shift_x"]) == pytest.approx(0.0, abs=6e-3)
    assert float(fit["shift_y"]) == pytest.approx(0.0, abs=6e-3)
    assert float(fit["gradient_x"]) == pytest.approx(0.0, abs=1e-7)
    assert float(fit["gradient_y"]) == pytest.approx(0.0, abs=1e-7)


def test_a_fitted_correction_is_as_good_as_the_true_one(dome):
    fit = fit_flat_gradients(samples_of(dome), parameters=parameters(fit_shift=True,
                                                                     fit_plane=True))  # fmt: skip
    assert float(fit["normalization"]) == pytest.approx(1.15, rel=1e-5)
    assert fit["type_ratio"].values == pytest.approx([1.0, 0.9], abs=2e-4)
    flat, transform, _ = dome[3]
    found = apply_flat_gradients(flat, transform, fit, known(SKY))["image"].values
    y, x = np.indices((SIDE, SIDE), dtype=np.float64)
    radius = np.hypot(*to_focal_plane(transform, x, y))
    truth = 0.9 * interpolate(NODES, SKY, radius, "akima", extrapolate="nan", reach=0.0)
    inside = radius < 4.4
    assert np.abs(found / truth - 1.0)[inside & np.isfinite(found)].max() < 1e-3


def test_variance_is_scaled_by_the_square_and_wild_ratios_are_bad(dome):
    flat, transform, _ = dome[3]
    before = flat.copy(deep=True)
    steep = known(np.array([1, 1, 1, 0.5, 0.04, 0.001, 0.0]))
    found = apply_flat_gradients(flat, transform, steep, known(SKY))
    factor = (found["image"] / flat["image"]).values
    good = np.isfinite(factor)
    np.testing.assert_allclose(found["variance"].values[good], 1e-6 * factor[good] ** 2, rtol=1e-12)
    lost = np.isnan(found["image"].values) & np.isfinite(flat["image"].values)
    assert lost.any()
    assert (found["mask"].values[lost] & MASK_PLANES["BAD"] > 0).all()
    assert not np.isinf(found["image"]).any()
    xr.testing.assert_identical(flat, before)
    lazy = apply_flat_gradients(flat.chunk(y=100, x=123), transform, steep, known(SKY))
    assert lazy["image"].chunks is not None
    xr.testing.assert_identical(lazy.compute(), found)
    assert found["image"].attrs == flat["image"].attrs


def test_errors_of_a_fit_are_those_that_noise_makes():
    options = parameters(fit_plane=True, fit_shift=True)
    # bins average the curvature of the profile, with noise or without
    samples = samples_of(flats(), types=False)
    names = ("value", "gradient_x", "gradient_y", "shift_x", "shift_y")
    exact = fit_flat_gradients(samples, parameters=options)
    rng = np.random.default_rng(8)
    pulls = []
    for _ in range(6):
        noise = 5e-4 * rng.normal(size=samples.sizes["sample"])
        noisy = samples.assign(level=samples["level"] + noise)
        fit = fit_flat_gradients(noisy, parameters=options)
        assert float(fit["scatter"]) == pytest.approx(5e-4 / 1.1, rel=0.03)
        for name in names:
            with np.errstate(invalid="ignore"):
                pull = (fit[name] - exact[name]) / fit[f"{name}_sigma"]
            pulls += np.atleast_1d(pull.values)[: 6 if name == "value" else 1].tolist()
    assert 0.6 < np.std(pulls) < 1.5
    labels = fit["parameter"].values.tolist()
    assert labels == [f"value_{r:g}" for r in NODES] + [
        "shift_x", "shift_y", "gradient_x", "gradient_y",
    ]  # fmt: skip


def test_a_bright_patch_pulls_little():
    made = flats(noise=2e-3)
    made[0][0]["image"][50:120, 50:120] *= 1.05
    fit = fit_flat_gradients(samples_of(made, types=False), parameters=parameters(fit_plane=True))
    assert fit["value"].values == pytest.approx(DOME, abs=1e-3)
    assert abs(float(fit["gradient_x"])) < 1e-4


def test_a_spline_may_take_the_place_of_akima():
    fit = fit_flat_gradients(
        samples_of(flats(), types=False), parameters=parameters(interpolation="natural_spline")
    )
    radius = np.linspace(0.0, 4.0, 50)
    truth = interpolate(NODES, DOME, radius, "akima")
    spline = CubicSpline(NODES, fit["value"].values, bc_type="natural")(radius)
    assert np.abs(spline - truth).max() < 0.03


def test_nodes_without_samples_have_no_error():
    far = FlatGradientParameters(
        nodes=(*NODES, 7.0, 8.0, 9.0, 10.0), centre_radius=1.0, fit_plane=False, fit_shift=False
    )
    fit = fit_flat_gradients(samples_of(flats(), types=False), parameters=far)
    assert np.isnan(fit["value_sigma"].values[-1])
    assert fit["value"].values[:5] == pytest.approx(DOME[:5], abs=1e-3)


def test_bins_lie_where_their_pixels_are():
    flat = xr.Dataset({"image": (("y", "x"), np.arange(48.0).reshape(6, 8))})
    transform = np.array([[2.0, 0.0, 1.0], [0.0, 2.0, 0.0]])
    found = sample_flat(
        flat,
        transform,
        detector="S0",
        detector_type="E2V",
        parameters=FlatSampleParameters(bin_size=2, edge=1),
    )
    assert found["focal_x"].values[:3].tolist() == [4.0, 8.0, 12.0]
    assert found["focal_y"].values[::3].tolist() == [3.0, 7.0]
    # a bin of a ramp has the value at its centre
    x, y = (found["focal_x"] - 1) / 2, found["focal_y"] / 2
    np.testing.assert_allclose(found["level"], x + 8 * y)
    assert found["count"].values.tolist() == [4] * 6


def test_bins_with_too_few_good_pixels_are_no_samples():
    flat = flats()[0][0]
    transform = flats()[0][1]
    found = sample_flat(flat, transform, detector="S0", parameters=SAMPLES)
    assert found.sizes["sample"] == 90 * 90 - 1
    flat["mask"][:, 100:] = MASK_PLANES["NO_DATA"]
    assert sample_flat(flat, transform, detector="S0", parameters=SAMPLES).sizes["sample"] < 2200


def test_failures_are_named():
    made = flats()
    with pytest.raises(GeometryError, match="no bin of 500 pixels"):
        sample_flat(*made[0][:2], detector="S0", parameters=FlatSampleParameters(bin_size=500))
    samples = samples_of(made)[["level"]]
    outside = samples.isel(sample=np.hypot(samples["focal_x"], samples["focal_y"]).values > 2.0)
    with pytest.raises(NoUsableDataError, match=r"within 1\.0 mm"):
        fit_flat_gradients(outside, parameters=parameters())
    with pytest.raises(NoUsableDataError, match="fewer than"):
        fit_flat_gradients(
            samples, parameters=parameters(smallest_value=0.95, largest_value=0.95001)
        )
    with pytest.raises(NoUsableDataError, match="base_type 'CCD'"):
        fit_flat_gradients(samples, parameters=parameters(base_type="CCD"))
    with pytest.raises(ValueError, match="ascend"):
        FlatGradientParameters(nodes=(0, 1, 2, 2, 3))
