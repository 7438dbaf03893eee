"""The brighter-fatter effect, put in by moving charge as it arrives and taken out by the chain."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from skyloom.algorithms.detrend import (
    BrighterFatterParameters,
    ScienceDetrendParameters,
    detrend,
)
from skyloom.algorithms.photon_transfer.kernel import full_prekernel, solve_kernel
from skyloom.algorithms.simulate import TYPICAL_A
from tests.algorithms.detrend.charge import collected, mean_square_radius
from tests.algorithms.detrend.frames import calibration, plane_of_amplifiers, read_out

SHAPE = (120, 96)


def typical_kernel(scale=1.0):
    """Return the kernel of a typical thick CCD, 1/electron."""
    a = np.array(TYPICAL_A, dtype=np.float64)[:6, :6]
    kernel = solve_kernel(full_prekernel(-a * scale))
    return xr.DataArray(kernel, dims=("kernel_y", "kernel_x"))


@pytest.fixture(scope="module")
def star():
    y, x = np.indices(SHAPE)
    return 500.0 + 6e4 * np.exp(-((y - 31.3) ** 2 + (x - 25.6) ** 2) / (2 * 2.0**2))


def size(image):
    return mean_square_radius(image, (31.3, 25.6), 500.0)


@pytest.mark.parametrize("units", ["electron", "adu"])
def test_a_star_that_was_made_fatter_gets_its_size_and_keeps_its_charge(table, star, units):
    kernel = typical_kernel()
    fat = collected(star, kernel.values)
    assert size(fat) > 1.008 * size(star)
    gain = plane_of_amplifiers(table, table["gain"].values)
    raw = read_out(fat / gain, table, dtype=np.float64)
    parameters = ScienceDetrendParameters(
        units=units, brighter_fatter=BrighterFatterParameters(threshold=1e-4)
    )
    scale = 1.0 if units == "electron" else gain
    plain = detrend(raw, table, parameters=parameters)["image"].values * scale
    fixed = detrend(raw, table, parameters=parameters, brighter_fatter=kernel)["image"].values
    fixed = fixed * scale
    assert fixed.sum(dtype=float) == pytest.approx(plain.sum(dtype=float), rel=1e-6)
    # what remains is of second order
    assert abs(size(fixed) / size(star) - 1) < 0.05 * (size(fat) / size(star) - 1)
    assert abs(fixed - star).max() < 0.1 * abs(fat - star).max()


def test_the_charge_counts_that_was_there_before_dark_and_flat(table, star, rng):
    kernel = typical_kernel()
    flat = calibration(rng.normal(1.0, 0.1, SHAPE), "")
    dark = calibration(np.full(SHAPE, 30.0), "electron/s")
    light = star * flat["image"].values + 300.0
    gain = plane_of_amplifiers(table, table["gain"].values)
    raw = read_out(collected(light, kernel.values) / gain, table, dtype=np.float64)
    found = detrend(raw, table, flat=flat, dark=dark, brighter_fatter=kernel)["image"]
    left = detrend(raw, table, flat=flat, dark=dark)["image"]
    assert abs(found - star).max() < 0.15 * abs(left - star).max()


def test_amplifiers_may_have_kernels_of_their_own(table, star):
    weak, strong = typical_kernel(0.5), typical_kernel()
    kernels = xr.Dataset(
        {
            "kernel": xr.concat([strong, weak, weak * 0, weak], "amp"),
            "kernel_valid": ("amp", [True, True, False, True]),
            "detector_kernel": weak,
        },
        coords={"amp": table["amp"]},
        attrs={"detector": "R0"},
    )
    raw = read_out(star, table, dtype=np.float64)
    by_amp = ScienceDetrendParameters(brighter_fatter=BrighterFatterParameters(level="amplifier"))
    found = detrend(raw, table, parameters=by_amp, gain=1.0, brighter_fatter=kernels)["image"]
    one = detrend(raw, table, gain=1.0, brighter_fatter=strong)["image"]
    other = detrend(raw, table, gain=1.0, brighter_fatter=kernels)["image"]
    inside = {"y": slice(10, 50), "x": slice(10, 40)}
    np.testing.assert_allclose(found.isel(inside), one.isel(inside), rtol=1e-3)
    assert abs(other.isel(inside) - one.isel(inside)).max() > 100


def test_kernels_that_do_not_fit_are_named(table, star):
    raw = read_out(star, table)
    kernel = typical_kernel()
    dataset = xr.Dataset({"detector_kernel": kernel, "kernel": kernel.expand_dims(amp=["C00"])})
    by_amp = ScienceDetrendParameters(brighter_fatter=BrighterFatterParameters(level="amplifier"))
    for given, parameters, message in (
        (kernel.assign_attrs(detector="R3"), None, "brighter_fatter is of detector 'R3'"),
        (kernel[:-1], None, r"kernel has shape \(10, 11\), needs odd sides"),
        (kernel * 0, None, "is 0 or not finite"),
        (kernel.rename(kernel_y="y"), None, "kernel has dimensions"),
        (kernel.pad(kernel_y=40, constant_values=0.0), None, "are smaller than the kernel"),
        (dataset.drop_vars("detector_kernel"), None, "lacks detector_kernel; it has kernel"),
        (dataset, by_amp, "lacks the amplifiers C01, C10, C11"),
        (kernel, by_amp, "for level 'amplifier' give a dataset"),
    ):
        with pytest.raises(ValueError, match=message):
            detrend(raw, table, parameters=parameters, brighter_fatter=given)
